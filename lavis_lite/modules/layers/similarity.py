"""Cosine similarity of unit vectors, in full precision under autocast too."""

from __future__ import annotations

from torch import Tensor

from lavis_lite.modules.layers.modes import full_precision


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosines (B, C) of unit vectors (B, E) and (C, E), in fp32 also under autocast."""
    with full_precision(rows.device):
        return rows.float() @ columns.float().T  # (B, C)
