"""Checks that parts of a model keep their contracts and fit each other, as far as configs tell."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.registry import Entry
from lavis_lite.registry.capabilities import has_capability, lacks
from lavis_lite.registry.component import width_hint


def misfits(entry: Entry, spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a component inside a model, beyond its arguments.

    Args:
        entry: the entry registered under its name.
        spec: the component.
        model: the arguments of the model around it, defaults included.
    """
    yield from entry.check(spec, model)
    if entry.kind.name in ("vision_encoder", "text_backbone"):
        yield from _without_width(entry)


def with_defaults(entry: Entry, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a builder, with defaults for those that the config leaves out."""
    parameters = entry.arguments.items()
    defaults = {k: p.default for k, p in parameters if p.default is not inspect.Parameter.empty}
    return {**defaults, **args}


def lacking(kind: str, name: str, missing: Iterable[str], model: str, built: type) -> str:
    """Say what a loss or metric requires and a model lacks, and the alternatives that fit it."""
    missing = list(missing)
    able = [other for other in registry.names(kind) if _requires(kind, other, built)]
    near = "".join(
        f" It has {close[0]!r}."
        for capability in missing
        if (close := difflib.get_close_matches(capability, dir(built), n=1, cutoff=0.85))
    )
    return (
        f"{kind} {name!r} requires {', '.join(missing)}, "
        f"which model {model!r} ({built.__name__}) lacks.{near} "
        f"What it can be given: {', '.join(able) or 'none'}"
    )


def lacking_for_arguments(
    entry: Entry, spec: Mapping[str, Any], model: str, built: type
) -> Iterator[str]:
    """Yield the capabilities that a part's arguments require and a model lacks.

    Args:
        entry: entry of the part; ``requires_if`` of its class maps an argument to the capabilities
            that it requires if true, and to the remedy.
        spec: the part in the config.
        model: name of the model.
        built: class of the model.
    """
    for argument, (capabilities, instead) in getattr(entry.result, "requires_if", {}).items():
        value = spec.get(argument, entry.arguments[argument].default)
        missing = lacks(built, capabilities)
        if value and missing:
            yield (
                f"{entry.kind.name} {entry.name!r} with `{argument}: {str(value).lower()}` "
                f"requires {', '.join(missing)}, "
                f"which model {model!r} ({built.__name__}) lacks; {instead}"
            )


def _requires(kind: str, name: str, built: type) -> bool:
    """Tell whether a model has all that a loss or metric lists in ``requires``."""
    try:
        needed = getattr(registry.entry(kind, name).result, "requires", None)
    except (UnknownName, ConfigError):
        return False
    return needed is not None and not lacks(built, needed)


def _without_width(entry: Entry) -> Iterator[str]:
    """Yield the problem of a class whose source assigns no ``width`` to its instances.

    A builder function, or a class that sets attributes by computed names, is checked when built.
    """
    built = entry.result
    if built is None or has_capability(built, "width"):
        return
    assigned: set[str] = set()
    for base in built.__mro__:
        if base.__module__.partition(".")[0] in ("torch", "builtins", "typing"):
            continue
        names = _assigned(base)
        if names is None:
            return
        assigned |= names
    if "width" in assigned:
        return
    hint = width_hint("self", assigned) or "`self.width = ...` in its constructor"
    yield (
        f"{entry.kind.name} {entry.name!r} ({entry.where}) has no `width`, the D of its states "
        f"(B, N, D) that the contract of a {entry.kind.name} asks for: add {hint}"
    )


def _assigned(owner: type) -> set[str] | None:
    """Return the attributes that a class assigns to ``self``; None if its source does not show."""
    if "__getattr__" in vars(owner):
        return None
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):
        return None
    if any(isinstance(n, ast.Name) and n.id in ("setattr", "vars") for n in ast.walk(source)):
        return None
    return {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
