"""The momentum copy of a model's towers, and what it is able to do."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from lavis_lite import registry
from lavis_lite.models.base import LossSpecs

T = TypeVar("T")


def add_momentum(model: Any, losses: LossSpecs | None) -> None:
    """Give a model with ``momentum_pairs`` its momentum copy, if one of its losses asks for it."""
    named = [spec["name"] for spec in (losses or {}).values() if "name" in spec]
    wanted = [registry.entry("loss", name).result for name in named]
    if any("momentum" in getattr(loss, "requires", ()) for loss in wanted):
        copy_towers(model)


def copy_towers(model: Any) -> None:
    """Give a model its momentum copy: what ``momentum_pairs`` names, frozen, as ``<name>_m``."""
    for name in model.momentum_pairs:
        frozen = copy.deepcopy(getattr(model, name))
        setattr(model, f"{name}_m", frozen.requires_grad_(False))


def add_distillation(model: Any, use_distill: bool, decay: float) -> None:
    """Note whether a model distils, and how fast its copy follows; if so, give it the copy."""
    model.use_distill, model.momentum_decay = use_distill, decay
    if use_distill:
        copy_towers(model)


def momentum_view(capability: type[T], model: Any) -> T:
    """A model's momentum copy as something that has a capability.

    Args:
        capability: a class without a constructor, such as ``JointSpace``.
        model: it has copies of what ``momentum_pairs`` names.
    """
    view = capability()
    for name in model.momentum_pairs:
        setattr(view, name, getattr(model, f"{name}_m"))
    for shared in ("tokenizer", "tokenize"):
        setattr(view, shared, getattr(model, shared))
    return view
