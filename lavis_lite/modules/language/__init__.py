"""Language models of transformers that write texts behind a prefix of vectors.

tokens.py           texts as ids with a start and an end, and back
causal.py           a causal model (OPT, GPT, LLaMA): prefix, prompt and text in one sequence
encoder_decoder.py  an encoder-decoder (T5): prefix and prompt are read, the text is written
decoding.py         their key-value caches, for ``lavis_lite.modules.generation``
memory.py           whether there is memory for one, said before it is loaded
loading.py          ``hf/*``, released models
fresh.py            ``new/*``, models that are yet to be trained
"""
