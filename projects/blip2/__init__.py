"""BLIP-2: a Q-Former between frozen vision encoders and language models (arXiv 2301.12597).

towers.py    vision towers and the norm between them and the Q-Former
qformer.py   learnt queries that read an image, beside a BERT that reads and writes texts
build.py     qformer, its parts from a config
zoo.yaml     model cards: types, presets, weights, sources
"""
