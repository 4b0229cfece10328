"""Attention of the text towers: heads, folding, and the post-norm output that BERT puts after it.

Dim letters: B rows of keys (images, or texts), R = K * B rows of queries, T text tokens, N keys,
D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.modules.layers.linear import Linear
from lavis_lite.modules.med.absorbed_attention import Unprojected
from lavis_lite.modules.med.unpadding import Padding

HALF = (torch.bfloat16, torch.float16)
# Queries of an image up to which plain products attend faster than the fused kernel of the CPU, and
# of all images together, so that their scores stay small.
MOST_QUERIES = {torch.bfloat16: 1024, torch.float32: 32}
MOST_TOGETHER = 4096

Extend = Callable[["KeyValue"], "KeyValue"]


class KeyValue(NamedTuple):
    """Projected keys and values of one layer, each (B, heads, N, head width)."""

    key: Tensor
    value: Tensor

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.key)


Source = KeyValue | Unprojected  # what a layer looks at
AnySource = TypeVar("AnySource", bound=Source)


def select(sources: Iterable[AnySource], index: Tensor) -> list[AnySource]:
    """The keys and values of the rows ``index`` (R,), of every layer; rows may repeat.

    A hard negative costs a gather here instead of a second projection of its image.
    """
    sources = list(sources)  # a tensor that is kept keeps its id
    rows: dict[int, Tensor] = {}  # what all layers share, they share afterwards

    def of(tensor: Tensor) -> Tensor:
        if id(tensor) not in rows:
            rows[id(tensor)] = tensor.index_select(0, index)
        return rows[id(tensor)]

    chosen = [
        each._replace(source=of(each.source))
        if isinstance(each, Unprojected)
        else KeyValue(of(each.key), of(each.value))
        for each in sources
    ]
    return cast(list[AnySource], chosen)


def compact(sources: Iterable[Source]) -> list[Source]:
    """The same keys and values, each head's in one piece: worth a copy where often read."""
    return [
        each
        if isinstance(each, Unprojected)
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
    """Attention of (R, T, D) queries to the keys and values of B rows; returns (R, T, D).

    With R = K * B the queries are image-major and the K texts of a row are folded into the query
    axis: the same numbers as repeating the row K times, without the copies.

    Args:
        query: projected queries, heads side by side in D.
        kv: keys and values, each (B, heads, N, head width); or tokens that are not projected.
        mask: True where a query may look, broadcastable to (B, heads, K * T, N); None for all.
        causal: query t sees keys 0..t only; needs as many keys as queries and no mask.
        dropout: probability of dropping an attention weight.
        padding: where the queries stand, if they are those of the real tokens alone, (M, D); then
            (M, D) is returned.
    """
    if padding is not None:
        return padding.take(attend(padding.put(query), kv, mask, causal, dropout))
    if isinstance(kv, Unprojected):
        assert not causal
        assert not dropout
        return kv.attend(query, mask)
    num_rows, num_heads, _, head_width = kv.key.shape
    q = query.reshape(num_rows, -1, num_heads, head_width).transpose(1, 2)  # (B, heads, K*T, .)
    k, v = kv.key.to(q.dtype), kv.value.to(q.dtype)
    trains_in_half = q.requires_grad and q.device.type == "cpu" and q.dtype in HALF
    if trains_in_half and mask is None and 2 * q.shape[2] < k.shape[2]:
        # Texts that look at an image: its keys stay as they are, only the scores grow to fp32.
        weights = (q * head_width**-0.5 @ k.transpose(-1, -2)).float().softmax(dim=-1)
        out = F.dropout(weights, dropout).to(v.dtype) @ v
    elif trains_in_half:
        # The CPU kernel's backward in bf16 is up to nine times slower than in fp32.
        with torch.autocast("cpu", enabled=False):
            out = F.scaled_dot_product_attention(
                q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal, dropout_p=dropout
            )
    elif mask is None and not causal and not dropout and _fits_products(q):
        out = (q * head_width**-0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    else:
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout
        )
    return out.transpose(1, 2).reshape(query.shape).to(query.dtype)  # (R, T, D)


def _fits_products(query: Tensor) -> bool:
    """Whether plain matrix products attend faster: on the CPU, a step of decoding above all.

    The fused kernel works on blocks of queries and wastes most of one on a few beams. It sums in
    fp32; in bf16 the products round the scores besides: the error doubles, to that of bf16 itself.
    """
    return (
        query.device.type == "cpu"
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
        """(B, N, source width) -> keys and values, each (B, heads, N, head width).

        Also of (M, source width), the real tokens alone, if it is said where they stand.
        """
        key, value = self.key(source), self.value(source)
        if padding is not None:
            key, value = padding.put(key), padding.put(value)
        return KeyValue(self._split(key), self._split(value))

    @property
    def projects_plainly(self) -> bool:
        """Whether keys and values are what the weights give: no adapter adds, no hook watches."""
        return all(
            isinstance(layer, Linear) and not layer._forward_hooks and not layer._forward_pre_hooks
            for layer in (self.key, self.value)
        )

    def unprojected(self, source: Tensor) -> Unprojected:
        """(B, N, source width) as it is, to be attended to by few queries."""
        return Unprojected.of(source, self.key, self.value, self.num_heads)

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def _at(places: Tensor, states: Tensor) -> Tensor:
    """Of (R, T, D) what stands at the places (R, S) of its rows: (R, S, D)."""
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[-1]))


def _mask_at(places: Tensor, mask: Tensor | None, causal: bool, length: int) -> Tensor | None:
    """What the queries at the places (R, S) see of T keys; see ``attend`` for mask and causal."""
    if causal:
        return places[:, None, :, None] >= torch.arange(length, device=places.device)
    if mask is None or mask.shape[2] == 1:  # all queries see the same
        return mask
    return _at(places, mask[:, 0])[:, None]


class AddNorm(nn.Module):
    """``LayerNorm(residual + dropout(dense(x)))``: BERT normalises after the sum."""

    def __init__(self, input_width: int, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.dense = Linear(input_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Attention(nn.Module):
    """Self- or cross-attention with its residual, under BERT's key names.

    Args:
        width: width of the text states.
        num_heads: heads, each ``width / num_heads`` wide.
        source_width: width of what is attended to: the text itself, or image tokens.
        dropout: probability, for attention weights and for the output.
        eps: of the LayerNorm.
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
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(R, T, D) states to (R, T, D), or without padding (M, D) to (M, D).

        See ``attend`` for ``mask`` and ``causal``.

        Args:
            x: text states.
            source: projected keys and values to attend to; None for self-attention.
            mask: True where a query may look.
            causal: hide later tokens.
            extend: self-attention with a cache: takes the keys and values of ``x`` and returns
                those of everything decoded so far.
            padding: where the states stand, if they are those of the real tokens alone.
            wanted: self-attention without a cache: (R, S) places of the rows that alone look at
                the others, and whose states (R, S, D) are returned.
        """
        if source is None:
            source = self.self.project(x, padding)
            source = extend(source) if extend is not None else source
        if wanted is not None:
            x = x if padding is None else padding.put(x)
            mask, causal = _mask_at(wanted, mask, causal, x.shape[1]), False
            x, padding = _at(wanted, x), None
        dropout = self.dropout if self.training else 0.0
        found = attend(self.self.query(x), source, mask, causal, dropout, padding)
        return self.output(found, x)
