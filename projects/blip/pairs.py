"""A text tower that reads a text with two images: cross-attention to each, then one of both.

Names are those of BLIP's NLVR checkpoints: ``crossattention.self0`` and ``self1`` look at the
first and second image, ``output.dense0`` and ``dense1`` project what they found; in the upper
layers ``output.merge_layer`` merges the two, in the lower ones they are averaged.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lavis_lite.modules.layers.init import init_linear_, init_weights
from lavis_lite.modules.med.attention import AddNorm, Attention, KeyValue, attend
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.med.unpadding import Padding


class PairKeyValue(NamedTuple):
    """Keys and values of one layer for the first and the second image."""

    first: KeyValue
    second: KeyValue


class PairOutput(nn.Module):
    """``LayerNorm(residual + dropout(both))``, from what was found in each image.

    Args:
        output: of an attention to one image; its projection serves both images to begin with.
        merge: whether a layer merges the two; otherwise they are averaged.
    """

    def __init__(self, output: AddNorm, merge: bool) -> None:
        super().__init__()
        width = output.dense.out_features
        self.LayerNorm = output.LayerNorm
        self.dense0, self.dense1 = output.dense, copy.deepcopy(output.dense)
        self.merge_layer = nn.Linear(2 * width, width) if merge else None
        self.dropout = output.dropout

    def forward(self, first: Tensor, second: Tensor, residual: Tensor) -> Tensor:
        """Three times (R, T, D) to (R, T, D)."""
        first, second = self.dense0(first), self.dense1(second)
        if self.merge_layer is None:
            both = (first + second) / 2
        else:
            both = self.merge_layer(torch.cat([first, second], dim=-1))
        return self.LayerNorm(self.dropout(both) + residual)


class PairAttention(nn.Module):
    """Cross-attention to two images with its residual.

    Args:
        attention: to one image; its weights serve both to begin with.
        merge: as of ``PairOutput``.
    """

    def __init__(self, attention: Attention, merge: bool) -> None:
        super().__init__()
        self.self0, self.self1 = attention.self, copy.deepcopy(attention.self)
        self.output = PairOutput(attention.output, merge)
        self.dropout = attention.dropout

    def forward(
        self,
        x: Tensor,
        images: PairKeyValue,
        mask: None = None,
        *,
        padding: Padding | None = None,
    ) -> Tensor:
        """(R, T, D) states, or (M, D) of real tokens, and both images' keys and values to such."""
        dropout = self.dropout if self.training else 0.0
        first = attend(self.self0.query(x), images.first, mask, False, dropout, padding)
        second = attend(self.self1.query(x), images.second, mask, False, dropout, padding)
        return self.output(first, second, x)


def read_pairs(tower: Med, merge_from: int, init_scale: float | None = None) -> None:
    """Make the cross-attention of a tower one to two images, its weights taken over.

    Args:
        tower: with cross-attention to one image.
        merge_from: the first layer, counted from 0, that merges what it found; those before
            average it.
        init_scale: draw the merging layers as ``init_linear_`` does; by default as BERT.
    """
    for number, layer in enumerate(tower.fusion_layers, start=tower.fusion_layer):
        attention = cast(Attention, layer.crossattention)
        pair = PairAttention(attention, merge=number >= merge_from)
        if (merge := pair.output.merge_layer) is not None:
            init_weights(merge)
            if init_scale is not None:
                init_linear_(merge, init_scale)
        cast(nn.Module, layer).crossattention = pair


def project_pairs(tower: Med, first: Tensor, second: Tensor) -> list[PairKeyValue]:
    """Cross-attention keys and values of two images' tokens (B, N, D) each, per layer."""
    pairs = [cast(PairAttention, layer.crossattention) for layer in tower.fusion_layers]
    return [PairKeyValue(pair.self0.project(first), pair.self1.project(second)) for pair in pairs]
