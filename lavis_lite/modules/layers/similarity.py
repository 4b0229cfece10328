"""Cosine similarity of unit vectors, in full precision under autocast too.

Something may also be represented by several vectors: the closest of them counts.

Dim letters: B rows, C columns, E width, Q and P vectors each.
"""

from __future__ import annotations

from torch import Tensor

from lavis_lite.modules.layers.modes import full_precision


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosines (B, C) of unit vectors (B, E) and (C, E), in fp32 also under autocast.

    Rows (B, Q, E) or columns (C, P, E) of several vectors have the highest cosine of any two.
    """
    with full_precision(rows.device):
        if rows.ndim == columns.ndim == 2:
            return rows.float() @ columns.float().T  # (B, C)
        flat = rows.float().flatten(0, -2) @ columns.float().flatten(0, -2).T  # (B * Q, C * P)
        each = flat.view(len(rows), num_vectors(rows), len(columns), num_vectors(columns))
        return each.max(dim=3).values.max(dim=1).values  # (B, C)


def paired_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the cosine (B,) of each row with its own column, shaped as for ``cosines``."""
    if rows.ndim == columns.ndim == 2:
        return (rows * columns).sum(-1)  # (B,)
    with full_precision(rows.device):
        vectors = [x if x.ndim == 3 else x[:, None] for x in (rows.float(), columns.float())]
        each = vectors[0] @ vectors[1].transpose(1, 2)  # (B, Q, P)
        return each.flatten(1).max(dim=1).values  # (B,)


def num_vectors(features: Tensor) -> int:
    """Return the number of vectors of each row of features (B, E) or (B, Q, E)."""
    return 1 if features.ndim == 2 else features.shape[1]
