"""Model cards: types, presets and released weights, from every package's zoo.yaml.

Beside its components a zoo.yaml has the cards of its models::

    presets:                                    # arguments that several types share
      base: {vision: {name: timm/vit_base_patch16_224}, text: {name: med}}
    models:
      my_caption:
        processors: {image: {train: {...}, eval: {...}}, text: {...}}
        types:                                  # the first one is the default
          base: {preset: base, args: {image_size: 384}, checkpoint: https://...}
          cased: {preset: base, processors: {text: ...}}   # laid onto those of the model

A type's ``hub`` has the repositories of the hub that hold such a model in transformers' layout,
each with the arguments that differ there: ``hub: {owner/name: {image_size: 384}}``.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lavis_lite import registry
from lavis_lite.errors import CheckpointError, UnknownName, suggest
from lavis_lite.registry.component import ModelComponent, merge

M = TypeVar("M", bound=ModelComponent)
RELEASED = "released"  # the checkpoint that stands for the released weights of a type


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names of all models that match a shell pattern."""
    return registry.names("model", pattern)


def card(name: str) -> dict[str, Any]:
    """Return the card of a model: its types with presets, weights, sizes and sources.

    Raises:
        UnknownName: no model has this name; the message lists the nearest.
    """
    if problem := registry.problem("model", name):
        raise UnknownName(problem)
    for package, zoo in registry.index.zoos.items():
        if name in zoo["models"]:
            return {"package": package, "types": {}, **zoo["models"][name]}
    return {"package": None, "types": {}}


def types(name: str) -> list[str]:
    """Return the types of a model, the default one first."""
    return list(card(name)["types"])


def default_type(name: str) -> str | None:
    """Return the type that ``load_model(name)`` means; None for a model without types."""
    return next(iter(types(name)), None)


def default_for(task: str) -> str:
    """Return a command's default model, whose card says ``default_for: [task]``.

    Raises:
        UnknownName: no model does.
    """
    for name in list_models():
        if task in card(name).get("default_for", ()):
            return name
    raise UnknownName(f"no model is made for {task!r}; name one of {', '.join(list_models())}")


@dataclass(frozen=True)
class HubModel:
    """The model that a repository of the hub holds, in transformers' layout."""

    name: str
    type: str
    args: Mapping[str, object] = field(default_factory=dict)


def of_hub_id(repository: str) -> HubModel | None:
    """Return the model that ``owner/name`` of the hub holds; None of one that no card knows."""
    for name in list_models():
        for type, entry in card(name)["types"].items():
            if repository in (known := (entry or {}).get("hub", {})):
                return HubModel(name, type, known[repository] or {})
            if (entry or {}).get("checkpoint") == f"hf://{repository}":
                return HubModel(name, type)
    return None


def model_type(name: str, type: str) -> dict[str, Any]:
    """Return the card of one type of a model.

    Raises:
        UnknownName: the model has no such type; the message lists those it has.
    """
    known = card(name)["types"]
    if type not in known:
        listed = ", ".join(known) or "none"
        raise UnknownName(
            f"model {name!r} has no type {type!r}.{suggest(type, known)} Types: {listed}"
        )
    return known[type] or {}


def preset(name: str, type: str) -> dict[str, Any]:
    """Return the builder's arguments of a type.

    Raises:
        UnknownName: the model has no such type, or the type's card names no preset of its package.
    """
    entry = model_type(name, type)
    shared = registry.index.zoos[card(name)["package"]]["presets"]
    start = entry.get("preset")
    if start is not None and start not in shared:
        raise UnknownName(
            f"model {name!r}, type {type!r}: no preset {start!r}.{suggest(start, shared)}"
        )
    return merge(shared.get(start, {}), entry.get("args", {}))


def processors(name: str, type: str | None) -> dict[str, Any]:
    """Return the processors of a type: its own, laid onto those of its model.

    Raises:
        UnknownName: no such model or type.
    """
    own = type_card(name, type).get("processors", {})
    return merge(card(name).get("processors", {}), own)


def vocabulary_size(tokenizer: str) -> int | None:
    """Return a hub tokenizer's vocabulary size from the zoo.yaml files; None if none has it."""
    said = (zoo["vocabularies"].get(tokenizer) for zoo in registry.index.zoos.values())
    return next((size for size in said if size is not None), None)


def whole(model: M) -> M:
    """Return a model component with all its arguments: its own, laid onto those of its type.

    A ``type`` of null means the default type's preset, so that a config may name the model alone.
    A loss of null takes the type's one away.

    Raises:
        UnknownName: as of ``preset``.
    """
    if model.given is not None:
        return model
    chosen = model.type or default_type(model.name)
    args = merge(preset(model.name, chosen) if chosen else {}, dict(model.args))
    if isinstance(args.get("losses"), Mapping):
        args["losses"] = {k: v for k, v in args["losses"].items() if v is not None}
    return dataclasses.replace(model, args=args, given=model.args)


def released_weights(name: str, type: str | None = None) -> str:
    """Return the path or URL of the released weights of a model type.

    Raises:
        CheckpointError: this type has none; the message lists those that have.
    """
    entry = type_card(name, type)
    if "checkpoint" not in entry:
        with_weights = [t for t, c in card(name)["types"].items() if "checkpoint" in (c or {})]
        raise CheckpointError(
            f"model {name!r} has no released weights for type {type or default_type(name)!r}; "
            f"types with weights: {', '.join(with_weights) or 'none'}"
        )
    address = entry["checkpoint"]
    if "://" in address:
        return address
    spec = importlib.util.find_spec(card(name)["package"])
    assert spec is not None
    assert spec.submodule_search_locations
    return str(Path(next(iter(spec.submodule_search_locations))) / address)


def type_card(name: str, type: str | None) -> dict[str, Any]:
    chosen = type or default_type(name)
    return model_type(name, chosen) if chosen else {}
