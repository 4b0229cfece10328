"""Benchmarks of BLIP's models against transformers and against the straightforward way.

inputs.py     models with random weights, images and texts to measure with
captions.py   blip_captions, blip_decoding   writing, with and without encoding the image
rerank.py     blip_rerank                    one image, many texts
answers.py    blip_vqa_rank                  questions, many answers each
pretrain.py   blip_pretrain_step             a training step; straightforward.py is its reference
memory.py     blip_training_memory           the same step, and ways of holding less meanwhile
capfilt.py    blip_capfilt, blip_capfilt_workers
"""
