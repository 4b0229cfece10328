"""Attention with absorbed projections: for so few queries that projecting the keys costs more.

A score q . (W_k x + b_k) is (W_k^T q) . x plus a number that is the same for every key, which the
softmax cancels; and the weighted sum of values W_v x + b_v is W_v applied to the weighted sum of
tokens, plus b_v. So the matrices can be applied to the queries and to the weighted sums instead of
to every token (weight absorption, as in multi-head latent attention, DeepSeek-V2, arXiv
2405.04434, section 2.1.2); and all layers share the tokens, whereas keys and values differ in
every layer.

Dim letters: B rows of tokens (images), R = K * B rows of queries, T text tokens, N image tokens, S
their width, D width of the text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

# The products here have few rows, and are slower than large ones by this factor (measured, CPU).
SLOWER = 1.5
# Each step reads the matrices of keys and values again; with fewer images than this, reading keys
# and values is faster (measured on a CPU).
FEWEST_IN_STEPS = 4


class AbsorbedProjections(NamedTuple):
    """The tokens a layer attends to, and the matrices that would project them to keys and values.

    source: (B, N, S) tokens, shared by all layers.
    key_weight: (heads, D / heads, S).
    value_weight: (heads, S, D / heads).
    value_bias: (D,); None if the value projection has no bias.
    """

    source: Tensor
    key_weight: Tensor
    value_weight: Tensor
    value_bias: Tensor | None

    @property
    def num_rows(self) -> int:
        """The number of rows B."""
        return len(self.source)

    @classmethod
    def from_layers(
        cls, source: Tensor, key: nn.Linear, value: nn.Linear, num_heads: int
    ) -> AbsorbedProjections:
        """Take tokens and the layers that would project them; all in the dtype of the tokens."""
        key_weight = key.weight.to(source.dtype)  # (D, S)
        value_weight = value.weight.to(source.dtype)  # (D, S)
        return cls(
            source,
            key_weight.unflatten(0, (num_heads, -1)),  # (heads, D/heads, S)
            value_weight.unflatten(0, (num_heads, -1)).transpose(1, 2),  # (heads, S, D/heads)
            None if value.bias is None else value.bias.to(source.dtype),
        )

    def attend(self, query: Tensor, mask: Tensor | None) -> Tensor:
        """Return the attention (R, T, D) of queries (R, T, D); see ``attention.attend``."""
        num_heads, head_width = self.key_weight.shape[:2]
        q = query.to(self.source.dtype).reshape(-1, num_heads, head_width)  # (R*T, heads, D/heads)
        q = q * head_width**-0.5
        q = q.transpose(0, 1) @ self.key_weight  # (heads, R*T, S)
        q = q.unflatten(1, (self.num_rows, -1)).transpose(0, 1)  # (B, heads, K*T, S)
        scores = q.flatten(1, 2) @ self.source.transpose(1, 2)  # (B, heads*K*T, N)
        if mask is not None:
            scores = scores.view(*q.shape[:3], -1)  # (B, heads, K*T, N)
            scores = scores.masked_fill(~mask, -torch.inf).flatten(1, 2)  # (B, heads*K*T, N)
        sums = scores.softmax(-1).to(self.source.dtype) @ self.source  # (B, heads*K*T, S)
        sums = sums.view(q.shape).transpose(0, 1).flatten(1, 2)  # (heads, R*T, S)
        out = sums @ self.value_weight  # (heads, R*T, D/heads)
        out = out.transpose(0, 1).reshape(query.shape)  # (R, T, D)
        return (out if self.value_bias is None else out + self.value_bias).to(query.dtype)


def absorption_pays(
    tokens: Tensor, width: int, num_heads: int, num_queries: int, num_steps: int = 1
) -> bool:
    """Tell whether attention to image tokens (B, N, S) is less work with absorbed projections.

    Only on the CPU, where it was measured, and without gradients; not in what is exported, which
    takes any number of texts of any length.

    Args:
        tokens: the image tokens.
        width: D.
        num_heads: attention heads of the layer.
        num_queries: text tokens that will attend to each image, in total.
        num_steps: the number of decoding steps that they are spread over.
    """
    if tokens.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_exporting():
        return False
    if num_steps > 1 and len(tokens) < FEWEST_IN_STEPS:
        return False
    num_tokens, source_width = tokens.shape[1:]
    projected = num_tokens * width * (source_width + num_queries)
    absorbed = num_queries * source_width * (num_heads * num_tokens + width)
    return SLOWER * absorbed < projected


def matmul_dtype(tokens: Tensor) -> torch.dtype:
    """Return the dtype that products of the tokens have: autocast's, if it is on."""
    device = tokens.device.type
    autocast = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else tokens.dtype
