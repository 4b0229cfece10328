"""FLAIR: an image is pooled by each text that it is compared with (arXiv 2412.03561).

model.py    flair                        two towers, and attention of a text over image tokens
pooling.py                               that attention
losses.py   text_conditioned_sigmoid     every pair judged by what its text sees in the image
zoo.yaml                                 model card: types and presets
"""
