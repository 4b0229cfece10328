"""AdamW with its parameter groups, and learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
)
from torch import nn

from lavis_lite.config.schema import OptimConfig
from lavis_lite.model import decay_groups

Schedule = Callable[[int], float]


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in groups that are not empty, by `decay_groups` unless the model says.

    A model that defines LAVIS's ``get_optimizer_params`` makes its own groups; the ``lr_scale`` of
    a group multiplies its learning rate at every step.
    """
    its_own: Any = getattr(model, "get_optimizer_params", None)
    groups = its_own(weight_decay) if its_own else decay_groups(model, weight_decay)
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters; fused where their device has the kernel."""
    groups = parameter_groups(model, config.weight_decay)
    devices = {p.device.type for group in groups for p in group["params"]}
    beta1, beta2 = config.betas
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(beta1, beta2),
        eps=config.eps,
        fused=devices <= {"cuda", "cpu", "mps"},
    )


def learning_rate(config: OptimConfig, max_steps: int) -> Schedule:
    """The learning rate as a function of the number of steps done (0 before the first one).

    A linear warm-up from ``warmup_lr`` to ``lr``, which its last step has; the first is one part
    above ``warmup_lr``, since a step at the rate 0 would train nothing. Then ``cosine`` falls to
    ``min_lr`` at ``max_steps``, ``step`` is ``lr * decay_rate ** (step // decay_steps)`` (steps
    counted from the start of the run) but never below ``min_lr``, ``constant`` stays at ``lr``.
    """
    warmup = LinearParamScheduler(config.warmup_lr, config.lr)
    cosine = CosineParamScheduler(config.lr, config.min_lr)
    constant = ConstantParamScheduler(config.lr)

    def rate(step: int) -> float:
        if step < config.warmup_steps:
            return warmup((step + 1) / config.warmup_steps)
        if config.schedule == "step":
            return max(config.min_lr, config.lr * config.decay_rate ** (step // config.decay_steps))
        where = (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps)
        return cosine(where) if config.schedule == "cosine" else constant(where)

    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to ``rate`` times the group's ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
