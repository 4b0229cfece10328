"""BLIP: understanding and generation from one mixture of encoder-decoder (arXiv 2201.12086).

caption.py    blip_caption               image -> text
retrieval.py  blip_retrieval             ITC + ITM fine-tuning, with momentum and queue
matching.py   blip_image_text_matching   the same towers, for inference
pretrain.py   blip_pretrain              ITC + ITM + LM
towers.py     the parts that these are composed of
convert.py    published checkpoints -> these models
zoo.yaml      model cards: types, presets, weights, sources
"""
