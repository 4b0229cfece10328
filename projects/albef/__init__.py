"""ALBEF: image and text are aligned before they are fused (arXiv 2107.07651).

pretrain.py           albef_pretrain           ITC + ITM + MLM, with momentum distillation
retrieval.py          albef_retrieval          ITC + ITM fine-tuning, with momentum and queue
vqa.py                albef_vqa                image and question -> answer
nlvr.py               albef_nlvr               whether a statement holds of two images
classification.py     albef_classification     the class of an image with its text
feature_extractor.py  albef_feature_extractor  features of image and text

formats.py, convert.py  published checkpoints -> these models
zoo.yaml                model cards: types, presets, weights, sources
"""
