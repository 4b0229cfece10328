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
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import decay_groups
from lavis_lite.modules.layers.tower_layers import layer_depths, towers

Schedule = Callable[[int], float]


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in groups that are not empty, by `decay_groups` unless the model says.

    A model that defines LAVIS's ``get_optimizer_params`` makes its own groups; the ``lr_scale`` of
    a group multiplies its learning rate at every step.

    Args:
        model: whose parameters with ``requires_grad`` are grouped.
        weight_decay: of matrices.
        layer_decay: below 1, groups are divided by depth: ``lr_scale`` is multiplied by it once for
            each layer from the end of a tower to the parameter, its own included, and once more for
            embeddings before the first layer. Heads and what follows the layers keep theirs.

    Raises:
        ConfigError: a layer decay for a model in whose towers no layers can be told.

    Reference: layer-wise decay as in ELECTRA, https://arxiv.org/abs/2003.10555, appendix A.
    """
    its_own: Any = getattr(model, "get_optimizer_params", None)
    groups = its_own(weight_decay) if its_own else decay_groups(model, weight_decay)
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    if layer_decay != 1.0:
        groups = _by_depth(groups, _depths(model), layer_decay)
    return [group for group in groups if group["params"]]


def _depths(model: nn.Module) -> dict[int, int]:
    """``id(parameter)`` -> layers between it and its tower's end, over all towers."""
    found = {**towers(model, "vision"), **towers(model, "text")}
    depths: dict[int, int] = {}
    for tower in found.values():
        of_tower, num_layers = layer_depths(tower)
        if not num_layers:
            raise ConfigError(
                f"optim.layer_decay: {type(tower).__name__} has no list of layers; use 1.0"
            )
        depths = {**of_tower, **depths}  # what two towers share counts in the first
    if not found:
        raise ConfigError(f"optim.layer_decay: {type(model).__name__} names no towers; use 1.0")
    return depths


def _by_depth(
    groups: list[dict[str, Any]], depths: dict[int, int], layer_decay: float
) -> list[dict[str, Any]]:
    divided = []
    for group in groups:
        parts: dict[int, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(depths.get(id(parameter), 0), []).append(parameter)
        scale = group.get("lr_scale", 1.0)
        divided += [
            {**group, "params": parts[depth], "lr_scale": scale * layer_decay**depth}
            for depth in sorted(parts)
        ]
    return divided


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters; fused where their device has the kernel."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
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
    """Return the learning rate as a function of the number of steps done (0 before the first).

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
