"""Attention of the text towers: heads, folding of queries, and BERT's post-norm output layer.

Dim letters: B rows of keys (images, or texts), R = K * B rows of queries, T text tokens, N keys,
D width, M real tokens of all rows, S query positions per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.modules.layers.linear import Linear
from lavis_lite.modules.med.absorbed_attention import AbsorbedProjections
from lavis_lite.modules.med.unpadding import Padding

HALF = (torch.bfloat16, torch.float16)
# The most queries of one image with which plain products are faster than the fused kernel of the
# CPU; and the most of all images together, so that their scores stay small.
MOST_QUERIES = {torch.bfloat16: 1024, torch.float32: 32}
MOST_TOGETHER = 4096

Extend = Callable[["KeyValue"], "KeyValue"]


class KeyValue(NamedTuple):
    """Projected keys and values of one layer, each (B, heads, N, D / heads)."""

    key: Tensor
    value: Tensor

    @property
    def num_rows(self) -> int:
        """The number of rows B."""
        return len(self.key)


Source = KeyValue | AbsorbedProjections  # what a layer attends to
AnySource = TypeVar("AnySource", bound=Source)


def select(sources: Iterable[AnySource], index: Tensor) -> list[AnySource]:
    """Return the keys and values of the rows ``index`` (R,), of every layer; rows may repeat.

    With this, a hard negative costs a gather instead of a second projection of its image.
    """
    sources = list(sources)  # keeps the tensors alive, so that their ids stay unique
    gathered: dict[int, Tensor] = {}  # tensors that all layers share are gathered once

    def gather(tensor: Tensor) -> Tensor:
        if id(tensor) not in gathered:
            gathered[id(tensor)] = tensor.index_select(0, index)  # (R, ...)
        return gathered[id(tensor)]

    chosen = [
        each._replace(source=gather(each.source))
        if isinstance(each, AbsorbedProjections)
        else KeyValue(gather(each.key), gather(each.value))
        for each in sources
    ]
    return cast(list[AnySource], chosen)


def compact(sources: Iterable[Source]) -> list[Source]:
    """Return the same keys and values, contiguous per head: worth a copy if they are read often."""
    return [
        each
        if isinstance(each, AbsorbedProjections)
        else KeyValue(each.key.contiguous(), each.value.contiguous())
        for each in sources
    ]


def attend(
    query: Tensor,
    kv: Source,
    mask: Tensor | None,
    causal: bool,
    dropout: float,
    padding: Padding | None = None,
) -> Tensor:
    """Return the attention (R, T, D) of queries (R, T, D) to the keys and values of B rows.

    With R = K * B the queries are image-major and the K texts of a row are folded into the query
    axis: the numbers are those of repeating the row K times, without the copies.

    Args:
        query: projected queries, heads side by side in D.
        kv: keys and values, each (B, heads, N, D / heads); or tokens with absorbed projections.
        mask: True where a query may look, broadcastable to (B, heads, K * T, N); None for all.
        causal: query t sees keys 0..t only; needs as many keys as queries and no mask.
        dropout: probability of dropping an attention weight.
        padding: the places of the real tokens, if ``query`` is unpadded (M, D); then (M, D) is
            returned.
    """
    if padding is not None:
        return padding.unpad(attend(padding.pad(query), kv, mask, causal, dropout))
    if isinstance(kv, AbsorbedProjections):
        assert not causal
        assert not dropout
        return kv.attend(query, mask)
    num_rows, num_heads, _, head_width = kv.key.shape
    q = query.reshape(num_rows, -1, num_heads, head_width)  # (B, K*T, heads, D/heads)
    q = q.transpose(1, 2)  # (B, heads, K*T, D/heads)
    k, v = kv.key.to(q.dtype), kv.value.to(q.dtype)  # (B, heads, N, D/heads)
    trains_in_half = q.requires_grad and q.device.type == "cpu" and q.dtype in HALF
    if trains_in_half and mask is None and 2 * q.shape[2] < k.shape[2]:
        # Few queries and many keys, as in cross-attention: only the scores are cast to fp32.
        scores = q * head_width**-0.5 @ k.transpose(-1, -2)  # (B, heads, K*T, N)
        weights = scores.float().softmax(dim=-1)  # (B, heads, K*T, N)
        out = F.dropout(weights, dropout).to(v.dtype) @ v  # (B, heads, K*T, D/heads)
    elif trains_in_half:
        # The CPU kernel's backward in bf16 is up to nine times slower than in fp32.
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal, dropout_p=dropout
            )  # (B, heads, K*T, D/heads)
    elif mask is None and not causal and not dropout and _fits_products(q):
        scores = q * head_width**-0.5 @ k.transpose(-1, -2)  # (B, heads, K*T, N)
        out = scores.softmax(dim=-1) @ v  # (B, heads, K*T, D/heads)
    else:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout
        )  # (B, heads, K*T, D/heads)
    return out.transpose(1, 2).reshape(query.shape).to(query.dtype)  # (R, T, D)


def _fits_products(query: Tensor) -> bool:
    """Tell whether plain matrix products are faster here: on the CPU, mostly in decoding steps.

    The fused kernel works on blocks of queries and wastes most of a block on a few beams. It sums
    in fp32; plain products in bf16 also round the scores, which doubles the error, to that of bf16
    itself.
    """
    return (
        query.device.type == "cpu"
        and not torch.compiler.is_exporting()  # what is exported takes any number of queries
        and query.shape[2] <= MOST_QUERIES.get(query.dtype, 0)
        and query.shape[0] * query.shape[2] <= MOST_TOGETHER
        and not torch.is_grad_enabled()
    )


class Heads(nn.Module):
    """Projections to queries, keys and values (BERT's ``attention.self``)."""

    def __init__(self, width: int, num_heads: int, source_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(width, width)
        self.key = Linear(source_width, width)
        self.value = Linear(source_width, width)

    def project(self, source: Tensor, padding: Padding | None = None) -> KeyValue:
        """Project (B, N, source width) to keys and values, each (B, heads, N, D / heads).

        With ``padding`` the source is unpadded, (M, source width), and keys are padded again.
        """
        key, value = self.key(source), self.value(source)  # (B, N, D), or unpadded (M, D)
        if padding is not None:
            key, value = padding.pad(key), padding.pad(value)  # (B, N, D)
        return KeyValue(self._split(key), self._split(value))  # (B, heads, N, D/heads)

    @property
    def has_plain_projections(self) -> bool:
        """Tell whether the weights alone make keys and values: no adapters (LoRA), no hooks."""
        return all(
            isinstance(layer, Linear) and not layer._forward_hooks and not layer._forward_pre_hooks
            for layer in (self.key, self.value)
        )

    def absorbed(self, source: Tensor) -> AbsorbedProjections:
        """Return tokens (B, N, source width) with their projections absorbed, for few queries."""
        return AbsorbedProjections.from_layers(source, self.key, self.value, self.num_heads)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, D/heads)


def _gather(states: Tensor, positions: Tensor) -> Tensor:
    """Return the states (R, S, D) at the positions (R, S) of (R, T, D)."""
    return states.gather(1, positions[:, :, None].expand(-1, -1, states.shape[-1]))  # (R, S, D)


def _gather_mask(
    mask: Tensor | None, positions: Tensor, causal: bool, length: int
) -> Tensor | None:
    """Return the mask of the queries at the positions (R, S) over T = ``length`` keys.

    See ``attend`` for ``mask`` and ``causal``.
    """
    if causal:
        keys = torch.arange(length, device=positions.device)  # (T,)
        return positions[:, None, :, None] >= keys  # (R, 1, S, T)
    if mask is None or mask.shape[2] == 1:  # all queries see the same
        return mask
    return _gather(mask[:, 0], positions)[:, None]  # (R, 1, S, T)


class AddNorm(nn.Module):
    """``LayerNorm(residual + dropout(dense(x)))``: post-norm, as in BERT."""

    def __init__(self, input_width: int, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.dense = Linear(input_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)  # (..., width)


class Attention(nn.Module):
    """Self- or cross-attention with its residual, under BERT's key names.

    Args:
        width: width of the text states.
        num_heads: heads, each ``width / num_heads`` wide.
        source_width: width of the states attended to: those of the text, or image tokens.
        dropout: probability, for attention weights and for the output.
        eps: epsilon of the LayerNorm.
    """

    def __init__(
        self, width: int, num_heads: int, source_width: int, dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.self = Heads(width, num_heads, source_width)
        self.output = AddNorm(width, width, dropout, eps)
        self.dropout = dropout

    def forward(
        self,
        x: Tensor,
        source: Source | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        extend: Extend | None = None,
        padding: Padding | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Map states (R, T, D) to (R, T, D), or unpadded ones (M, D) to (M, D).

        See ``attend`` for ``mask`` and ``causal``.

        Args:
            x: text states.
            source: projected keys and values to attend to; None for self-attention.
            mask: True where a query may look.
            causal: hide later tokens.
            extend: self-attention with a cache: takes the keys and values of ``x`` and returns
                those of all tokens decoded so far.
            padding: the places of the real tokens, if the states are unpadded.
            query_positions: self-attention without a cache: (R, S) positions that are the only
                queries, and whose states (R, S, D) are returned.
        """
        if source is None:
            source = self.self.project(x, padding)
            source = extend(source) if extend is not None else source
        if query_positions is not None:
            x = x if padding is None else padding.pad(x)  # (R, T, D)
            mask = _gather_mask(mask, query_positions, causal, x.shape[1])  # (R, 1, S or 1, T)
            x = _gather(x, query_positions)  # (R, S, D)
            causal, padding = False, None
        dropout = self.dropout if self.training else 0.0
        query = self.self.query(x)  # (R, T or S, D), or unpadded (M, D)
        context = attend(query, source, mask, causal, dropout, padding)  # the shape of query
        return self.output(context, x)  # the shape of query
