"""CLIP and SigLIP: an image and a text tower that meet in one space (arXiv 2103.00020, 2303.15343).

Their types include SigLIP 2 (2502.14786) and Perception Encoder Core (2504.13181).

formats.py            layouts of weights that are read
clip.py               clip                     softmax contrast over the batch (info_nce)
siglip.py             siglip                   an independent loss per pair (sigmoid)
feature_extractor.py  clip_feature_extractor   an image and a text as features
text.py               clip_text                the text tower of both
names.py, convert.py  weights of OpenAI, open_clip and transformers -> these models
config_check.py       what a transformers config.json says that shapes don't show
zoo.yaml              model cards: types, presets, weights, sources
"""
