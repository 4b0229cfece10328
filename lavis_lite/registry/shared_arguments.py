"""Keyword arguments that several builders have in common, stated once as a TypedDict.

    class Choice(TypedDict, total=False):
        limit: Annotated[int | None, Argument("at most so many rows.")]

    @registry.register("dataset", "mine")
    class Mine:
        def __init__(self, path: str, **choice: Unpack[Choice]): ...

A config may give ``limit`` to ``mine`` as if it stood in the constructor.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Argument:
    """The facts about a key of such a TypedDict that its type does not tell.

    Attributes:
        text: its documentation.
        default: of the argument.
        check: value of the right type -> the keys inside it that are wrong, each with its problem;
            the empty path is the value itself. A config is checked so before anything is built.
    """

    text: str
    default: object = None
    check: Callable[[Any], Iterable[tuple[tuple[str, ...], str]]] = lambda value: ()


def shared(parameter: inspect.Parameter) -> dict[str, Argument]:
    """Return the keys behind ``**name: Unpack[SomeTypedDict]``; none of any other parameter."""
    return {key: _split(hint)[1] for key, hint in _hints(parameter).items()}


def spread(parameters: Iterable[inspect.Parameter]) -> Iterator[inspect.Parameter]:
    """Yield parameters, with a keyword argument for every key in the place of an unpacked dict."""
    for parameter in parameters:
        hints = _hints(parameter)
        for key, hint in hints.items():
            plain, argument = _split(hint)
            yield inspect.Parameter(
                key, parameter.KEYWORD_ONLY, default=argument.default, annotation=plain
            )
        if not hints:
            yield parameter


def _hints(parameter: inspect.Parameter) -> dict[str, Any]:
    unpacked = typing.get_origin(parameter.annotation) is typing.Unpack
    if parameter.kind is not parameter.VAR_KEYWORD or not unpacked:
        return {}
    return typing.get_type_hints(typing.get_args(parameter.annotation)[0], include_extras=True)


def _split(hint: object) -> tuple[Any, Argument]:
    """Return the plain type of a key, and what is stated beside it."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, Argument("")
    plain, *stated = typing.get_args(hint)
    return plain, next((one for one in stated if isinstance(one, Argument)), Argument(""))
