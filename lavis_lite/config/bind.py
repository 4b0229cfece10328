"""Stage 2 of checking a config: arguments and capabilities, against the parts it names.

Imports the named parts and nothing else, and builds nothing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Union

from lavis_lite import registry
from lavis_lite.config.files import KeyPath, Source, origin_of, spell
from lavis_lite.config.fit import (
    lacking,
    lacking_for_arguments,
    misfits,
    with_defaults,
)
from lavis_lite.config.validate import scalar_problem
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.io.redaction import is_secret
from lavis_lite.registry.capabilities import lacks
from lavis_lite.registry.component import NESTED_KINDS, NESTED_MAPPINGS, Component, ModelComponent

Problem = tuple[KeyPath, str]


def components(
    config: Any, path: KeyPath = (), kind: str = ""
) -> Iterator[tuple[KeyPath, str, Component]]:
    """Every component of a config with its key path and registry kind."""
    if isinstance(config, Component) and kind:
        yield path, kind, config
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            inner = field.metadata.get("kind") or ""
            yield from components(getattr(config, field.name), (*path, field.name), inner)
    elif isinstance(config, list):
        for index, item in enumerate(config):
            yield from components(item, (*path, index), kind)


def bind(config: Any, source: Source | None = None, file: str = "") -> None:
    """Check every component's arguments, and that the model can do what its run asks of it.

    Args:
        config: from ``load``.
        source: where each key came from, for the messages.
        file: what they name where ``source`` does not know.

    Raises:
        ConfigError: all problems in one report, each with its key path.
    """
    problems: list[Problem] = []
    for path, kind, component in components(config):
        if isinstance(component, ModelComponent):
            problems += _model_problems(component, path)
            problems += _capability_problems(config, component, path)
        else:
            problems += _problems(kind, component.name, component.args, path)
    if problems:
        lines = [
            f"{origin_of(source, path, file)}: {spell(path)}: {p}"
            if source
            else f"{spell(path)}: {p}"
            for path, p in problems
        ]
        raise ConfigError("\n".join(lines))


def _problems(kind: str, name: str, args: Mapping[str, Any], path: KeyPath) -> Iterator[Problem]:
    """What is wrong with the arguments of one component."""
    try:
        accepted = registry.arguments(kind, name, with_runtime=True)
    except (UnknownName, ConfigError) as error:
        yield path, str(error)
        return
    for problem in registry.argument_problems(repr(name), args, accepted, registry.runtime(kind)):
        yield path, problem
    for key, value in args.items():
        wrong = _type_problem(value, accepted[key].annotation) if key in accepted else None
        if wrong is not None:
            yield (*path, key), "another type is expected" if is_secret(key) else wrong


def _model_problems(model: ModelComponent, path: KeyPath) -> Iterator[Problem]:
    from lavis_lite.registry import cards

    args = cards.model_args(model)
    problems = [*_problems("model", model.name, args, path), *_part_problems(model, args, path)]
    yield from problems
    if not problems and _result("model", model.name) is not None:
        whole = with_defaults(model.name, args)
        for problem in registry.misfits("model", {"name": model.name, **whole}, whole):
            yield path, problem


def _part_problems(
    model: ModelComponent, args: Mapping[str, Any], path: KeyPath
) -> Iterator[Problem]:
    for key, kind in NESTED_KINDS.items():
        if isinstance(spec := args.get(key), dict):
            yield from _nested_problems(kind, spec, (*path, key), model, args)
    for key, kind in NESTED_MAPPINGS.items():
        for name, spec in (args.get(key) or {}).items():
            yield from _nested_problems(kind, spec, (*path, key, name), model, args)


def _nested_problems(
    kind: str,
    spec: Mapping[str, Any],
    path: KeyPath,
    model: ModelComponent,
    around: Mapping[str, Any],
) -> Iterator[Problem]:
    if "name" not in spec:
        yield path, "a component needs a `name`"
        return
    args = {k: v for k, v in spec.items() if k != "name"}
    problems = list(_problems(kind, spec["name"], args, path))
    yield from problems
    if not problems and _result("model", model.name) is not None:
        for problem in misfits(kind, spec, with_defaults(model.name, around)):
            yield path, problem


def _capability_problems(config: Any, model: ModelComponent, at: KeyPath) -> Iterator[Problem]:
    """Losses, metrics and parts played that require what the model's class does not have."""
    from lavis_lite.registry import cards

    built = _result("model", model.name)
    if built is None:
        return
    if missing := lacks(built, model.requires):
        yield (
            at,
            f"a {spell(at)} needs {', '.join(missing)}, "
            f"which model {model.name!r} ({built.__name__}) lacks",
        )
    losses = cards.model_args(model).get("losses") or {}
    wishes: list[tuple[KeyPath, str, Component]] = [
        ((*at, "losses", key), "loss", Component(str(spec.get("name")), spec))
        for key, spec in losses.items()
    ]
    for index, evaluator in enumerate(getattr(config, "evaluate", [])):
        wishes.append((("evaluate", index), "metric", evaluator))
    for path, kind, part in wishes:
        found = _result(kind, part.name)
        if missing := lacks(built, getattr(found, "requires", ())):
            yield path, lacking(kind, part.name, missing, model.name, built)
        elif found is not None:
            for problem in lacking_for_arguments(kind, found, part, model.name, built):
                yield path, problem


def _result(kind: str, name: Any) -> type | None:
    """The class that a name builds; None where that is unknown, which is reported elsewhere."""
    try:
        return registry.result(kind, name) if isinstance(name, str) else None
    except (UnknownName, ConfigError):
        return None


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
    if origin in (Sequence, list):
        if not isinstance(value, Sequence) or isinstance(value, str):
            return f"a list is expected, not {type(value).__name__} {value!r}"
        problems = (
            _type_problem(item, choice) for item in value for choice in typing.get_args(wanted)
        )
        return next((f"in the list: {problem}" for problem in problems if problem), None)
    return None
