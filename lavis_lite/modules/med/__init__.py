"""The mixture of encoder-decoder (BLIP, section 3.1): BERT with cross-attention, in three modes."""
