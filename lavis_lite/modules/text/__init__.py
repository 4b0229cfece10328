"""Text: the mixture of encoder-decoder, its BERT initialisation, and the tokenizer."""
