"""Number formats of a forward pass, and the loss scaling that fp16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast, and for fp16 a gradient scaler whose state travels with the checkpoint.

    Args:
        name: fp32, bf16 or fp16.
        device: where the forward passes run.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype = DTYPES[name]
        self.device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes; fp32 needs none."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Backpropagate a () loss, scaled where fp16 would lose small gradients."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, before they are measured or clipped."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One optimizer step on unscaled, finite gradients."""
        self.scaler.step(optimizer)

    def update(self) -> None:
        """Adapt the scale: lower after an overflow, from time to time higher."""
        self.scaler.update()

    @property
    def is_adapting(self) -> bool:
        """Tell whether an overflow may just mean that the scale is still too high."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1.0

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state; empty without one."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
