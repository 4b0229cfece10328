"""Scores of captions against references: BLEU, CIDEr, ROUGE-L, METEOR and SPICE."""
