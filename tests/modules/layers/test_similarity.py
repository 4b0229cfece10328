"""Cosines keep full precision under autocast."""

from __future__ import annotations

import torch
from torch import nn

from lavis_lite.modules.layers.similarity import cosines


def test_cosines_are_fp32_under_autocast() -> None:
    rows = nn.functional.normalize(torch.randn(3, 32), dim=1)
    plain = cosines(rows, rows)
    with torch.autocast("cpu", torch.bfloat16):
        assert cosines(rows.bfloat16(), rows).dtype == torch.float32
        assert cosines(rows, rows).equal(plain)
