"""The models of a run, equal ones loaded once, and the scorers that compute with them."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.errors import CheckpointError
from lavis_lite.models import zoo
from lavis_lite.modules.layers.prepack import prepack
from lavis_lite.projects.blip.capfilt.config import CapfiltRunConfig, Scorer
from lavis_lite.projects.blip.capfilt.scoring import NamedScorer
from lavis_lite.registry import cards
from lavis_lite.registry.component import ModelComponent
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.process import seed_everything

log = logging.getLogger(__name__)


class Models:
    """The models of a run by the part that they have in it; equal components share one model.

    Args:
        run: with the seed of random weights.
        precision: with the device of the models.

    Attributes:
        by_part: part (``captioner``, ``filter``, ``scorer NAME``) -> model.
        parts: the part that a model was loaded for first, by the model's ``id``.
    """

    def __init__(self, run: CapfiltRunConfig, precision: Precision) -> None:
        self._seed, self._precision = run.seed, precision
        self.by_part: dict[str, nn.Module] = {}
        self.parts: dict[int, str] = {}
        self._loaded: dict[str, nn.Module] = {}

    def load(self, component: ModelComponent, part: str) -> nn.Module:
        """Return the model of a component, ready for inference."""
        alike = [component.name, component.type, component.checkpoint, dict(component.args)]
        written = json.dumps(alike, sort_keys=True, default=str)
        if written not in self._loaded:
            model = load(component, part, self._seed).to(self._precision.device)
            self._loaded[written] = model.eval().requires_grad_(False)
            self.parts[id(model)] = part
        self.by_part[part] = self._loaded[written]
        return self._loaded[written]

    @property
    def device(self) -> torch.device:
        """The device of the models."""
        return self._precision.device

    def that_read_pixels(self) -> dict[str, nn.Module]:
        """Return the models that images are prepared for, by their first part."""
        return {
            part: self.by_part[part]
            for part in self.parts.values()
            if not getattr(self.by_part[part], "reads_pictures", False)
        }

    def prepack(self) -> None:
        """Lay all weights out as the processor multiplies fastest."""
        for model in self._loaded.values():
            prepack(model, self._precision.dtype)


def load_scorers(
    listed: Mapping[str, Scorer], models: Models, seed: int, batch_size: int
) -> list[NamedScorer]:
    """Build scorers with their models.

    Args:
        listed: name -> scorer of a config.
        models: those that are there, and where new ones go.
        seed: of the run.
        batch_size: texts at a time.
    """
    built = []
    for name, one in listed.items():
        model = None if one.model is None else models.load(one.model, f"scorer {name}")
        runtime: dict[str, Any] = {"model": model, "seed": seed, "batch_size": batch_size}
        if model is None:
            del runtime["model"]
        scorer = registry.build("scorer", {"name": one.name, **one.args}, **runtime)
        for module in _own_modules(scorer, model):
            module.to(models.device).eval().requires_grad_(False)
        built.append(NamedScorer(name, scorer, model))
    return built


def modules_of(scorers: Sequence[NamedScorer]) -> dict[str, nn.Module]:
    """Return the modules that scorers built themselves, by what they are a part of."""
    return {
        f"scorer {one.name} itself": nn.ModuleList(own)
        for one in scorers
        if (own := _own_modules(one.scorer, one.model))
    }


def _own_modules(scorer: object, model: nn.Module | None) -> list[nn.Module]:
    return [
        value
        for _, value in sorted(vars(scorer).items())
        if isinstance(value, nn.Module) and value is not model
    ]


def load(component: ModelComponent, part: str, seed: int) -> nn.Module:
    """A model with its checkpoint; without one, with the released weights of its type.

    Where there are none either, its weights are random, by the seed, and a warning says so; with
    ``checkpoint: random`` they are meant to be.
    """
    seed_everything(seed, part)
    if component.checkpoint == "random":
        component = dataclasses.replace(component, checkpoint=None)
    elif component.checkpoint is None:
        try:
            released = cards.released_weights(component.name, component.type)
            component = dataclasses.replace(component, checkpoint=released)
        except CheckpointError:
            if cards.types(component.name):  # others bring their weights themselves
                log.warning(
                    "%s: no checkpoint is given and type %s of %s has none: its weights are random",
                    part,
                    component.type or cards.default_type(component.name),
                    component.name,
                )
    return zoo.build_model(component)
