"""Context managers for evaluation mode and for computing without autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Put a module into evaluation mode, without dropout; give each part its mode back after."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Turn off autocast, which would multiply fp32 tensors in half precision."""
    return torch.autocast(device.type, enabled=False)
