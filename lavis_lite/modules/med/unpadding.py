"""Padding left out: layers compute the real tokens of a batch alone, and attention puts them back.

Dim letters: R texts, T tokens of the longest, M real tokens of all of them, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Padding(NamedTuple):
    """Where the real tokens stand among those of padded texts.

    places: (M,) in R * T.
    real: (R, T) which are real.
    """

    places: Tensor
    real: Tensor

    @classmethod
    def of(cls, mask: Tensor | None) -> Padding | None:
        """Of a mask (R, T); None where nothing would be left out, or where that cannot be known
        without waiting for the device."""
        if mask is None or mask.ndim != 2 or mask.device.type != "cpu":
            return None
        if torch.compiler.is_compiling():  # a number of tokens that only running it tells
            return None
        real = mask.bool()
        places = real.flatten().nonzero()[:, 0]
        return cls(places, real) if len(places) < real.numel() else None

    def take(self, states: Tensor) -> Tensor:
        """(R, T, D) to (M, D), those of the real tokens."""
        return states.flatten(0, 1).index_select(0, self.places)

    def put(self, states: Tensor) -> Tensor:
        """(M, D) to (R, T, D), 0 at padding."""
        num_texts, length = self.real.shape
        rows = states.new_zeros(num_texts * length, states.shape[-1])
        return rows.index_copy_(0, self.places, states).unflatten(0, (num_texts, length))
