"""BERT's language-model head: logits over the vocabulary, with tied word embeddings.

Dim letters: D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lavis_lite.modules.layers.init import init_weights
from lavis_lite.modules.layers.linear import Linear, gelu_of


class Transform(nn.Module):
    """Dense, GELU, LayerNorm: the part of BERT's head before the vocabulary."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.dense = Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.LayerNorm(gelu_of(self.dense, x))  # (..., D)


class Predictions(nn.Module):
    """Logits over the vocabulary; the output weights are the word embeddings."""

    def __init__(self, word_embeddings: nn.Embedding, eps: float) -> None:
        super().__init__()
        vocab_size, width = word_embeddings.weight.shape
        self.transform = Transform(width, eps)
        self.transform.apply(init_weights)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.decoder = Linear(width, vocab_size, device="meta")
        self.decoder.weight = word_embeddings.weight
        self.decoder.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.transform(x))  # (..., V)


class Head(nn.Module):
    """BERT's ``cls``: maps states (..., D) to logits (..., V)."""

    def __init__(self, word_embeddings: nn.Embedding, eps: float) -> None:
        super().__init__()
        self.predictions = Predictions(word_embeddings, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.predictions(x)  # (..., V)
