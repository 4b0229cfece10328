"""Gradient checkpointing for a while: contenders of one benchmark share one model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lavis_lite.modules.layers.tower_layers import Keep, recompute_activations


@contextmanager
def recomputing(model: nn.Module, keep: Keep = "nothing") -> Iterator[None]:
    """Let the layers of all towers recompute activations in this context, except for ``keep``."""
    already_patched = {module for module in model.modules() if "forward" in vars(module)}
    recompute_activations(model, "vision", -1, keep)
    recompute_activations(model, "text", -1, keep)
    try:
        yield
    finally:
        for module in set(model.modules()) - already_patched:
            vars(module).pop("forward", None)
