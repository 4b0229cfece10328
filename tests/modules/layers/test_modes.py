"""Modes are put back as they were, whatever happens within them."""

from __future__ import annotations

import pytest
from torch import nn

from lavis_lite.modules.layers.modes import eval_mode


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
