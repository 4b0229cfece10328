"""BLIP: understanding and generation from one mixture of encoder-decoder (arXiv 2201.12086).

caption.py            blip_caption              image -> text
retrieval.py          blip_retrieval            ITC + ITM fine-tuning, with momentum and queue
matching.py           blip_image_text_matching  the same towers, for inference
pretrain.py           blip_pretrain             ITC + ITM + LM
vqa.py                blip_vqa                  image and question -> answer
nlvr.py               blip_nlvr                 whether a statement holds of two images
classification.py     blip_classification       the class of an image with its text
feature_extractor.py  blip_feature_extractor    features of image and text

towers.py             the parts that these are composed of
reading.py            texts that are read with their image; pairs.py: with two images
answering.py          answers, written and ranked
gradcam.py            where in an image the words of a text are found
convert.py            published checkpoints -> these models
zoo.yaml              model cards: types, presets, weights, sources
"""
