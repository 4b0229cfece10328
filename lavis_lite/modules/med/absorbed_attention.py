"""Attention to image tokens as they are: for so few queries that projecting keys is more work.

A score q . (W_k x + b_k) is (W_k^T q) . x plus the same number for every key, which the softmax
takes out; and the weighted sum of values W_v x + b_v is W_v applied to the weighted sum of tokens,
plus b_v. So the matrices can meet the queries and what they gathered instead of every token; and
all layers look at the same tokens, where keys and values are different ones in every layer.

Dim letters: B rows of tokens (images), R = K * B rows of queries, T text tokens, N image tokens, S
their width, D width of the text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# How much slower the products here are than large ones: they have few rows (measured on a CPU).
SLOWER = 1.5
# Each step reads the matrices of keys and values again; of fewer images, keys and values are read
# sooner (measured on a CPU).
FEWEST_IN_STEPS = 4


class Unprojected(NamedTuple):
    """What a layer looks at, and the matrices that would make its keys and values.

    source: (B, N, S) tokens, of all layers the same.
    key_weight: (heads, head width, S).
    value_weight: (heads, S, head width).
    value_bias: (D,); None where values have none.
    """

    source: Tensor
    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor | None

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.source)

    @classmethod
    def of(cls, source: Tensor, key: nn.Linear, value: nn.Linear, num_heads: int) -> Unprojected:
        """Tokens and the layers that would project them; everything in the tokens' format."""
        key_weight, value_weight = (layer.weight.to(source.dtype) for layer in (key, value))
        return cls(
            source,
            key_weight.unflatten(0, (num_heads, -1)),
            value_weight.unflatten(0, (num_heads, -1)).transpose(1, 2),
            None if value.bias is None else value.bias.to(source.dtype),
        )

    def attend(self, query: Tensor, mask: Tensor | None) -> Tensor:
        """(R, T, D) queries to (R, T, D), as ``attention.attend`` does with keys and values."""
        num_heads, head_width = self.key_weight.shape[:2]
        q = query.to(self.source.dtype).reshape(-1, num_heads, head_width) * head_width**-0.5
        q = q.transpose(0, 1) @ self.key_weight  # (heads, R*T, S)
        q = q.unflatten(1, (self.num_rows, -1)).transpose(0, 1)  # (B, heads, K*T, S)
        scores = q.flatten(1, 2) @ self.source.transpose(1, 2)  # (B, heads * K*T, N)
        if mask is not None:
            scores = scores.view(*q.shape[:3], -1).masked_fill(~mask, -torch.inf).flatten(1, 2)
        gathered = scores.softmax(-1).to(self.source.dtype) @ self.source  # (B, heads * K*T, S)
        gathered = gathered.view(q.shape).transpose(0, 1).flatten(1, 2)  # (heads, R*T, S)
        out = (gathered @ self.value_weight).transpose(0, 1).reshape(query.shape)
        return (out if self.value_bias is None else out + self.value_bias).to(query.dtype)


def pays(tokens: Tensor, width: int, num_heads: int, num_queries: int, num_steps: int = 1) -> bool:
    """Whether a layer looks at image tokens (B, N, S) with less work if it does not project them.

    On the CPU, where it was measured, and without gradients.

    Args:
        tokens: the image tokens.
        width: D.
        num_heads: of the layer.
        num_queries: text tokens that will look at each image, in all.
        num_steps: in how many steps they come.
    """
    if tokens.device.type != "cpu" or torch.is_grad_enabled():
        return False
    if num_steps > 1 and len(tokens) < FEWEST_IN_STEPS:
        return False
    num_tokens, source_width = tokens.shape[1:]
    projected = num_tokens * width * (source_width + num_queries)
    unprojected = num_queries * source_width * (num_heads * num_tokens + width)
    return SLOWER * unprojected < projected


def format_of_products(tokens: Tensor) -> torch.dtype:
    """The format in which tokens are multiplied: that of autocast, where it is on."""
    kind = tokens.device.type
    on = torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else tokens.dtype
