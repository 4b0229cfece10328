"""BLIP-2: a Q-Former between frozen vision encoders and language models (arXiv 2301.12597).

towers.py    vision towers and the norm between them and the Q-Former
qformer.py   learnt queries that read an image, beside a BERT that reads and writes texts
build.py     qformer, its parts from a config
model.py     blip2, blip2_feature_extractor: contrast, matching and writing
matching.py  blip2_image_text_matching
inputs.py    what methods of these take, checked
formats.py, convert.py, huggingface_retrieval.py  weights of the first stage, in and out
processors.py  LAVIS's image processor for training
zoo.yaml     model cards: types, presets, weights, sources

The second stage, with a language model:

language.py          the model: image -> text, image and question -> answer
opt.py, t5.py        blip2_opt, blip2_t5: registered builders
instruct.py          InstructBLIP: the Q-Former reads the instruction too
text_only.py         text_language, a language model by itself, which trains on texts
build_language.py    its parts from a config
language_formats.py  layouts of weights that are read and written
huggingface.py       those of transformers
names.py             one tensor's key in each dialect
"""
