"""Unpadding: layers compute only the real tokens of a batch, and attention pads them again.

Dim letters: R texts, T tokens of the longest, M real tokens of all texts, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Padding(NamedTuple):
    """The places of the real tokens of padded texts.

    indices: (M,) places in the R * T tokens.
    real: (R, T) True for real tokens.
    """

    indices: Tensor
    real: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor | None) -> Padding | None:
        """Find the real tokens of a mask (R, T).

        None if no token is padding, or if finding out would wait for the device.
        """
        if mask is None or mask.ndim != 2 or mask.device.type != "cpu":
            return None
        if torch.compiler.is_compiling():  # M would depend on the data
            return None
        real = mask.bool()  # (R, T)
        indices = real.flatten().nonzero()[:, 0]  # (M,)
        return cls(indices, real) if len(indices) < real.numel() else None

    def unpad(self, states: Tensor) -> Tensor:
        """Return the states (M, D) of the real tokens among (R, T, D)."""
        return states.flatten(0, 1).index_select(0, self.indices)  # (M, D)

    def pad(self, states: Tensor) -> Tensor:
        """Return states (M, D) as (R, T, D), 0 at padding."""
        num_texts, length = self.real.shape
        padded = states.new_zeros(num_texts * length, states.shape[-1])  # (R*T, D)
        padded.index_copy_(0, self.indices, states)
        return padded.unflatten(0, (num_texts, length))  # (R, T, D)
