"""The momentum copy: a model's parts once more, which follow its own; the teacher of ALBEF."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.modules.layers.ema import local, momentum_update
from lavis_lite.registry.capabilities import members_of


class MomentumCopy:
    """A model as it is with frozen copies in the place of some of its parts.

    Whatever the model's class does with these parts it does with the copies: of ``copy``, made of
    a model that has ``encode_image``, ``copy.encode_image(image)`` encodes with the copied encoder.
    Everything else (tokenizer, sizes, methods) is the model's own.

    The copies belong to the model, as ``<name>_m``: the names of published checkpoints. They are
    looked up when they are used, since training may put adapters in their places.

    Args:
        model: its ``momentum_pairs`` names the parts that are copied; they are in place.
        decay: share of its old self that the copy keeps in each update, in [0, 1].

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.4.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._model = model
        self._names: tuple[str, ...] = tuple(model.momentum_pairs)
        self.decay = decay
        for name in self._names:
            frozen = copy.deepcopy(getattr(model, name)).requires_grad_(False)
            model.add_module(f"{name}_m", frozen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_names" not in vars(self):  # while it is copied or unpickled
            raise AttributeError(name)
        if name in self._names:
            return getattr(self._model, f"{name}_m")
        owner = type(self._model)
        member = inspect.getattr_static(owner, name, None)
        if inspect.isfunction(member) or isinstance(member, property):
            return member.__get__(self, owner)
        return getattr(self._model, name)

    def update(self) -> None:
        """Move the copies towards the model's own parts.

        The copy of a frozen part, once equal to it, stays so to the bit.
        """
        pairs = [pair for pair in self._pairs() if not _at_rest(*pair)]
        online = [p for part, _ in pairs for p in part.parameters()]
        if online:
            average = [p for _, part in pairs for p in part.parameters()]
            momentum_update(online, average, self.decay)

    @torch.no_grad()
    def reset(self) -> None:
        """Make the copies equal to the model's own parts."""
        for online, average in self._pairs():
            average.load_state_dict(online.state_dict())

    def _pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(getattr(self._model, n), getattr(self._model, f"{n}_m")) for n in self._names]


def _at_rest(online: nn.Module, average: nn.Module) -> bool:
    """Tell whether a part is frozen and its copy equal: sums would only round the copy away."""
    pairs = list(zip(online.parameters(), average.parameters(), strict=True))
    if not pairs or any(p.requires_grad for p, _ in pairs):
        return False
    return all(torch.equal(local(p.data), local(copied.data)) for p, copied in pairs)


def asked_for(losses: Mapping[str, Mapping[str, Any]] | None) -> bool:
    """Tell whether one of a model's losses requires its ``momentum`` copy.

    Args:
        losses: name -> component.
    """
    named = [spec["name"] for spec in (losses or {}).values() if "name" in spec]
    built = [registry.entry("loss", name).result for name in named]
    return any("momentum" in members_of(getattr(loss, "requires", ())) for loss in built)
