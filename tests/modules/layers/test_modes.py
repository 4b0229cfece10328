"""Modes are put back as they were, whatever happens within them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavis_lite.modules.layers.modes import cosines, eval_mode


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def test_evaluation_ends_and_each_part_has_its_own_mode_again() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()).eval())
    before = modes(model)
    with eval_mode(model):
        assert not any(modes(model))
    assert modes(model) == before == [True, True, False, False]
    with pytest.raises(ZeroDivisionError), eval_mode(model):
        _ = 1 / 0
    assert modes(model) == before


def test_cosines_are_fp32_under_autocast() -> None:
    rows = nn.functional.normalize(torch.randn(3, 32), dim=1)
    plain = cosines(rows, rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert cosines(rows.bfloat16(), rows).dtype == torch.float32
        assert cosines(rows, rows).equal(plain)
