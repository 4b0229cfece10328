"""Attention with gradients in half precision on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lavis_lite.modules.med.attention import KeyValue, attend


def gradients(query: Tensor, kv: KeyValue, dropout: float = 0.0) -> tuple[Tensor, ...]:
    """What was attended to, and the gradients of query, key and value."""
    leaves = [t.detach().requires_grad_() for t in (query, *kv)]
    out = attend(leaves[0], KeyValue(*leaves[1:]), None, False, dropout)
    out.float().square().sum().backward()
    return out.detach(), *(leaf.grad for leaf in leaves)  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_queries", "fused"), [(3, False), (24, False), (25, True)])
def test_texts_that_look_at_an_image_keep_its_keys_in_half_precision(
    num_queries: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, num_queries, 32, generator=generator).bfloat16()
    kv = KeyValue(*torch.randn(2, 2, 4, 50, 8, generator=generator).bfloat16())
    exact = gradients(query.double(), KeyValue(*(t.double() for t in kv)))
    called = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or kernel(*a, **k)
    )
    found = gradients(query, kv)
    assert bool(called) == fused
    for mine, true in zip(found, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.double() - true).norm() < 0.01 * true.norm()


def test_weights_of_attention_are_dropped_and_the_rest_grows() -> None:
    query = torch.zeros(1, 2, 8).bfloat16()  # looks at all keys alike
    kv = KeyValue(torch.zeros(1, 1, 4000, 8).bfloat16(), torch.ones(1, 1, 4000, 8).bfloat16())
    torch.manual_seed(0)
    found = gradients(query, kv, dropout=0.5)[3][0, 0, :, 0]  # of the values: what weighs how much
    assert 1800 < int((found == 0).sum()) * 4 / 2 < 2200  # neither of two queries looked at it
    assert not gradients(query, kv)[3].eq(0).any()
