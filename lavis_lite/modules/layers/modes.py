"""Modes that something is computed in: evaluation, and full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """A module in evaluation mode, without dropout; afterwards each part has its own mode again."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """No autocast, which would multiply fp32 tensors in half precision."""
    return torch.autocast(device.type, enabled=False)


def cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """(B, E) and (C, E) unit vectors to (B, C) cosines, in fp32 also under autocast."""
    with full_precision(rows.device):
        return rows.float() @ columns.float().T
