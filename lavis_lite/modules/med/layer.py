"""A layer of a MED, and the list of them, under BERT's key names.

Dim letters: R texts, T tokens, S query positions, M real tokens of all texts, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

from torch import Tensor, nn

from lavis_lite.modules.layers.linear import Linear, gelu_of
from lavis_lite.modules.med.attention import AddNorm, Attention, Extend, Source
from lavis_lite.modules.med.unpadding import Padding

AnyLayer = TypeVar("AnyLayer", bound=nn.Module)


class Layer(nn.Module):
    """Self-attention, cross-attention if image keys are given, feed-forward."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        encoder_width: int | None,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, width, dropout, eps)
        if encoder_width is not None:
            self.crossattention = Attention(width, num_heads, encoder_width, dropout, eps)
        self.intermediate = expansion(width, mlp_width)
        self.output = AddNorm(mlp_width, width, dropout, eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        image: Source | None,
        image_mask: Tensor | None,
        extend: Extend | None = None,
        query_positions: Tensor | None = None,
        padding: Padding | None = None,
    ) -> Tensor:
        """Map states (R, T, D) to (R, T, D), or (R, S, D) at ``query_positions``.

        With ``padding`` the states are unpadded, (M, D); see ``Med.forward``.
        """
        x = self.attention(
            x,
            mask=mask,
            causal=causal,
            extend=extend,
            padding=padding,
            query_positions=query_positions,
        )  # (R, T or S, D), or unpadded (M, D)
        if query_positions is not None:  # the rest works per token: the other tokens are done
            padding = None
        if image is not None:
            x = self.crossattention(x, image, mask=image_mask, padding=padding)  # the same shape
        return feed_forward(self.intermediate, self.output, x)  # (R, T or S, D), or unpadded (M, D)


class Encoder(nn.Module, Generic[AnyLayer]):
    """The layers, under BERT's name ``encoder.layer.N``."""

    def __init__(self, layers: list[AnyLayer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[AnyLayer]:
        return iter(cast(Iterable[AnyLayer], self.layer))


def expansion(width: int, mlp_width: int) -> nn.ModuleDict:
    """Make the first half of a feed-forward, under BERT's name ``intermediate.dense``."""
    return nn.ModuleDict({"dense": Linear(width, mlp_width)})


def feed_forward(intermediate: nn.ModuleDict, output: AddNorm, x: Tensor) -> Tensor:
    """Map states (..., D) to (..., D): expanded, GELU, and added to ``x`` with a LayerNorm."""
    return output(gelu_of(intermediate["dense"], x), x)  # (..., D)
