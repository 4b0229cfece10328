"""Stage 2 of checking a config: arguments and capabilities, against the parts it names.

Imports the named parts and nothing else, and builds nothing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union

from lavis_lite import registry
from lavis_lite.config.files import KeyPath
from lavis_lite.config.schema import Component, ModelComponent
from lavis_lite.config.validate import (
    NESTED_KINDS,
    NESTED_MAPPINGS,
    scalar_problem,
    spell,
)
from lavis_lite.errors import ConfigError, UnknownName


def components(
    config: Any, path: KeyPath = (), kind: str = ""
) -> Iterator[tuple[KeyPath, str, Component]]:
    """Every component of a config with its key path and registry kind."""
    if isinstance(config, Component) and kind and config.name:
        yield path, kind, config
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            inner = field.metadata.get("kind") or ""
            yield from components(getattr(config, field.name), (*path, field.name), inner)
    elif isinstance(config, list):
        for index, item in enumerate(config):
            yield from components(item, (*path, index), kind)


def bind(config: Any) -> None:
    """Check every component's arguments, and that the model can do what its run asks of it.

    Raises:
        ConfigError: all problems in one report, each with its key path.
    """
    problems: list[str] = []
    for path, kind, component in components(config):
        if isinstance(component, ModelComponent):
            problems += _model_problems(component, path)
        else:
            problems += _problems(kind, component.name, component.args, path)
    model = getattr(config, "model", None)
    if isinstance(model, ModelComponent) and not problems:
        problems += _capability_problems(config, model)
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(kind: str, name: str, args: Mapping[str, Any], path: KeyPath) -> list[str]:
    """What is wrong with the arguments of one component."""
    where = spell(path)
    try:
        accepted = registry.arguments(kind, name, with_runtime=True)
    except (UnknownName, ConfigError) as error:
        return [f"{where}: {error}"]
    found = registry.argument_problems(repr(name), args, accepted, registry.runtime(kind))
    problems = [f"{where}: {problem}" for problem in found]
    for key, value in args.items():
        if key in accepted and (problem := _type_problem(value, accepted[key].annotation)):
            problems.append(f"{where}.{key}: {problem}")
    return problems


def _model_problems(model: ModelComponent, path: KeyPath) -> list[str]:
    from lavis_lite import zoo

    args = zoo.model_args(model)
    problems = _problems("model", model.name, args, path)
    for key, kind in NESTED_KINDS.items():
        if isinstance(spec := args.get(key), dict):
            problems += _nested_problems(kind, spec, (*path, key))
    for key, kind in NESTED_MAPPINGS.items():
        for name, spec in (args.get(key) or {}).items():
            if spec is not None:
                problems += _nested_problems(kind, spec, (*path, key, name))
    return problems


def _nested_problems(kind: str, spec: Mapping[str, Any], path: KeyPath) -> list[str]:
    if "name" not in spec:
        return [f"{spell(path)}: a component needs a `name`"]
    args = {k: v for k, v in spec.items() if k != "name"}
    return _problems(kind, spec["name"], args, path)


def _capability_problems(config: Any, model: ModelComponent) -> list[str]:
    """Losses and metrics that require what the model's class does not have."""
    from lavis_lite import zoo

    built = registry.result("model", model.name)
    if built is None:
        return []
    wishes: list[tuple[str, str, str]] = []
    for key, spec in (zoo.model_args(model).get("losses") or {}).items():
        if spec is not None:
            wishes.append((f"model.losses.{key}", "loss", spec["name"]))
    for index, evaluator in enumerate(getattr(config, "evaluate", [])):
        wishes.append((f"evaluate[{index}]", "metric", evaluator.name))
    problems = []
    for where, kind, name in wishes:
        needed = getattr(registry.result(kind, name), "requires", ())
        if missing := [c for c in needed if not has_capability(built, c)]:
            problems.append(
                f"{where}: {kind} {name!r} requires {', '.join(missing)}, "
                f"which model {model.name!r} ({built.__name__}) lacks"
            )
    return problems


def has_capability(model: type, name: str) -> bool:
    """Whether instances of a model class have ``name``: as a method, property or annotation."""
    return hasattr(model, name) or any(
        name in vars(base).get("__annotations__", {}) for base in model.__mro__
    )


def _type_problem(value: Any, wanted: Any) -> str | None:
    """Why ``value`` does not fit an annotation; None also where that is not a plain type."""
    origin = typing.get_origin(wanted)
    if origin in (Union, types.UnionType):
        found = [_type_problem(value, choice) for choice in typing.get_args(wanted)]
        return None if None in found else found[0]
    if wanted is type(None) or wanted is None:
        return None if value is None else "null is expected"
    if origin is Literal:
        choices = typing.get_args(wanted)
        listed = ", ".join(map(str, choices))
        return None if value in choices else f"{value!r} is none of its values: {listed}"
    if wanted in (int, float, str, bool):
        return scalar_problem(value, wanted)
    return None
