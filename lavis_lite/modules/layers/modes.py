"""Evaluation mode, for a while or for good, and computing without autocast."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn


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


def freeze_module(module: nn.Module) -> None:
    """Take a module's parameters out of training and hold it in evaluation mode."""
    module.requires_grad_(False)
    hold_in_evaluation(module)


def hold_in_evaluation(module: nn.Module) -> None:
    """Keep a module in evaluation mode, whatever mode the model around it is put into."""
    module.eval()
    module.train = functools.partial(_unchanged, module)  # type: ignore[method-assign]


def _unchanged(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
