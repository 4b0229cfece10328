"""One check of values from YAML against type annotations, of config keys and of arguments."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from lavis_lite.errors import suggest

_SCALARS: dict[Any, Any] = {int: int, float: (int, float), str: str, bool: bool}


def problem_of(value: object, annotation: Any) -> str | None:
    """Say why a value does not fit; None if it does, or if the annotation is not a plain type.

    An int is a float, and a bool is neither.

    Args:
        value: the value as YAML gives it.
        annotation: a type made of int, float, str, bool, None, Literal, Union, lists and mappings.
    """
    origin = typing.get_origin(annotation) or annotation
    if origin in (Union, types.UnionType):
        problems = [problem_of(value, choice) for choice in typing.get_args(annotation)]
        return None if None in problems else problems[0]
    if annotation in (None, type(None)):
        return None if value is None else f"null is expected, not {seen(value)}"
    if origin is Literal:
        return _choice_problem(value, typing.get_args(annotation))
    if origin in (list, Sequence):
        return _list_problem(value, typing.get_args(annotation))
    if origin in (dict, Mapping):
        return None if isinstance(value, Mapping) else f"a mapping is expected, not {seen(value)}"
    if annotation not in _SCALARS or (
        isinstance(value, _SCALARS[annotation]) and isinstance(value, bool) == (annotation is bool)
    ):
        return None
    return f"{annotation.__name__} is expected, not {seen(value)}"


def seen(value: object) -> str:
    """Return a value with its type, as messages quote it."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '...'}"


def _choice_problem(value: object, choices: tuple[object, ...]) -> str | None:
    if value in choices:
        return None
    near = suggest(str(value), map(str, choices))
    return f"{value!r} is not one of its values.{near} Values: {', '.join(map(str, choices))}"


def _list_problem(value: object, inner: tuple[Any, ...]) -> str | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return f"a list is expected, not {seen(value)}"
    problems = (problem_of(item, choice) for item in value for choice in inner)
    return next((f"in the list: {problem}" for problem in problems if problem), None)
