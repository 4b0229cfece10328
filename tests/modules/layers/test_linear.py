"""Linear layers by oneDNN: the same numbers, only where it is faster, never where it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_lite.modules.layers import linear
from lavis_lite.modules.layers.linear import Linear, fits_onednn

needs_onednn = pytest.mark.skipif(not linear.ONEDNN, reason="this torch has no oneDNN")


def pair(width: int = 48, outputs: int = 70) -> tuple[Linear, nn.Linear]:
    ours, plain = Linear(width, outputs), nn.Linear(width, outputs)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("shape", [(3, 48), (2, 3, 48), (4, 1, 48), (256, 48), (300, 48), (48,)])
def test_it_is_the_linear_layer_to_within_rounding(shape: tuple[int, ...]) -> None:
    ours, plain = pair()
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=2e-6)
        folded = x.expand(2, *shape).transpose(0, -2) if x.ndim > 1 else x
        torch.testing.assert_close(ours(folded), plain(folded), rtol=0, atol=2e-6)


@needs_onednn
def test_onednn_multiplies_few_rows_only_where_nothing_stands_against_it() -> None:
    weight = torch.randn(8, 4)
    with torch.no_grad():
        assert fits_onednn(torch.randn(3, 1, 4), weight)
        assert not fits_onednn(torch.randn(1, 4), weight)
        assert not fits_onednn(torch.randn(257, 4), weight)
        assert not fits_onednn(torch.randn(3, 4).bfloat16(), weight.bfloat16())
        assert not fits_onednn(torch.randn(3, 4, device="meta"), weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert not fits_onednn(torch.randn(3, 4), weight)
    assert not fits_onednn(torch.randn(3, 4), weight)  # it has no backward pass


@needs_onednn
def test_few_rows_go_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair()
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: pytest.fail("torch's own product"))
    with torch.no_grad():
        assert ours(torch.randn(3, 48)).shape == (3, 70)


def test_gradients_are_those_of_the_linear_layer() -> None:
    ours, plain = pair()
    x = torch.randn(3, 48)
    for layer in (ours, plain):
        layer(x).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
