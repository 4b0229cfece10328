"""The options of a call: their names and plain types, checked against the function's signature."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from lavis_lite import registry
from lavis_lite.config.annotations import problem_of
from lavis_lite.errors import ConfigError, suggest

F = TypeVar("F", bound=Callable[..., Any])
_PLAIN = (int, float, bool, str, Path, None, type(None))


def checked_options(function: F) -> F:
    """Make a function refuse options that it does not take, or not of that type.

    An option is a parameter annotated as ``int``, ``float``, ``bool``, ``str``, ``Path``, a
    ``Literal``, a list of numbers, a mapping, or one of these or None. The other parameters,
    ``samples`` too, are the function's own to check. NumPy's integers and floats count as Python's.

    Raises:
        ConfigError: from the function; a misspelt or missing argument, or an option of another
            type; the message has the nearest name or value.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> object:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ConfigError(_unbound(function, signature, kwargs, error)) from None
        for name, annotation in _options(function).items():
            if name not in bound.arguments:
                continue
            bound.arguments[name] = value = _plain(bound.arguments[name])
            text = os.fspath(value) if isinstance(value, os.PathLike) else value
            if problem := problem_of(text, annotation):
                raise ConfigError(f"{name}: {problem}")
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def checked_arguments(kind: str, name: str, arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return arguments of a component that are of the types that its builder says.

    Args:
        kind: of the component, as in the registry.
        name: its registered name.
        arguments: those that are given by hand; a config's are checked as a whole. Numbers of
            NumPy become Python's.

    Raises:
        UnknownName: no such component.
        ConfigError: an argument of another type.
    """
    taken = registry.entry(kind, name).parameters
    plain = {key: _plain(value) for key, value in arguments.items()}
    for key, value in plain.items():
        if key in taken and (problem := problem_of(value, taken[key].annotation)):
            raise ConfigError(f"{kind} {name!r}: {key}: {problem}")
    return plain


def _unbound(
    function: Callable[..., Any],
    signature: inspect.Signature,
    kwargs: Mapping[str, object],
    error: TypeError,
) -> str:
    taken = [name for name in signature.parameters if name not in ("self", "model", "cls")]
    wrong = next((name for name in kwargs if name not in signature.parameters), None)
    what = f"{error}." if wrong is None else f"no argument {wrong!r}.{suggest(wrong, taken)}"
    return f"{function.__name__}: {what} It takes {', '.join(taken)}"


@functools.cache
def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """Name -> type of the parameters whose annotations are plain; others are left out."""
    names = vars(typing) | vars(inspect.getmodule(function) or types.ModuleType("nowhere"))
    options = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = parameter.annotation
        if annotation == "Samples":
            continue
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)  # of our own source
            except NameError:  # a name that is imported for type checkers alone is no plain type
                continue
        if parameter.kind is not parameter.VAR_KEYWORD and _is_plain(annotation):
            options[parameter.name] = _with_text_for_paths(annotation)
    return options


def _is_plain(annotation: object) -> bool:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return all(_is_plain(choice) for choice in inner)
    if origin in (list, Sequence):
        return inner[0] in (int, float)
    return annotation in _PLAIN or origin in (Literal, dict, Mapping)


def _with_text_for_paths(annotation: Any) -> Any:
    """The type with ``str`` for ``Path``: a path is checked by its text."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        choices = [_with_text_for_paths(choice) for choice in typing.get_args(annotation)]
        return functools.reduce(operator.or_, choices)
    return str if annotation is Path else annotation


def _plain(value: object) -> object:
    """A number of NumPy as one of Python; anything else as it is."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")  # a tensor's dtype has none
    if kind in ("b", "i", "u", "f") and getattr(value, "ndim", None) == 0:
        return getattr(value, "item")()  # noqa: B009  # a number is not known to have it
    return value
