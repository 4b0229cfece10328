"""BLIP: understanding and generation from one mixture of encoder-decoder (arXiv 2201.12086).

caption.py            blip_caption              image -> text
retrieval.py          blip_retrieval            ITC + ITM fine-tuning, with momentum and queue
matching.py           blip_image_text_matching  the same towers, for inference
pretrain.py           blip_pretrain             ITC + ITM + LM
vqa.py                blip_vqa                  image and question -> answer
nlvr.py               blip_nlvr                 whether a statement holds of two images
classification.py     blip_classification       the class of an image with its text
feature_extractor.py  blip_feature_extractor    features of image and text

Each has its class, made of built parts, and the registered function that builds it from a config.

captioning.py         an image-grounded decoder; the rest is lavis_lite.models
formats.py            layouts of weights that are read and written
pairs.py              a text tower that reads a text with two images
convert.py            published checkpoints -> these models
zoo.yaml              model cards: types, presets, weights, sources
"""
