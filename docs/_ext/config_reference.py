"""The directive ``config-reference``: tables of config keys, read from their dataclasses.

    .. config-reference:: lavis_lite.config.schema.TrainConfig

prints one table for the dataclass and, without the option ``shallow``, one for each section in it.
Of a TypedDict that builders share, such as ``lavis_lite.data.choice.Choice``, it prints the keys.
"""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite.registry.component import Component


class ConfigReference(Directive):
    """Tables for one config dataclass; the argument is its import path."""

    required_arguments = 1
    option_spec = {"shallow": directives.flag}

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].rpartition(".")
        config = getattr(importlib.import_module(module), name)
        if typing.is_typeddict(config):
            lines = list(describe_shared(config))
        else:
            lines = list(describe(config, nested="shallow" not in self.options))
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, self.arguments[0]), holder)
        return holder.children


def describe(config: type, path: str = "", nested: bool = True) -> Iterator[str]:
    """RST for a dataclass and, where ``nested``, for the sections inside it."""
    if path:
        yield from [f".. rubric:: ``{path}``", ""]
    yield from [(config.__doc__ or "").strip().replace("`", "``").replace("````", "``"), ""]
    yield from heading()
    hints = typing.get_type_hints(config)
    sections = []
    for field in dataclasses.fields(config):
        section = section_of(hints[field.name])
        dotted = f"{path}.{field.name}" if path else field.name
        if section:
            in_mapping = typing.get_origin(hints[field.name]) is dict
            sections.append((section, f"{dotted}.*" if in_mapping else dotted))
        yield from row(
            f"``{dotted}``",
            "section" if section else spell_type(hints[field.name], field.metadata.get("kind")),
            "``null``" if field.default is None else "" if section else spell_default(field),
            field.metadata.get("doc", "").replace("`", "``"),
        )
    yield ""
    for section, dotted in sections if nested else ():
        yield from describe(section, dotted)


def describe_shared(keys: type) -> Iterator[str]:
    """RST for the keys of a TypedDict that stand in the signatures of several builders."""
    yield from heading()
    for key, hint in typing.get_type_hints(keys, include_extras=True).items():
        plain, argument = typing.get_args(hint)
        meaning = argument.text.replace("`", "``")
        yield from row(
            f"``{key}``", spell_type(plain, None), spell_value(argument.default), meaning
        )
    yield ""


def heading() -> Iterator[str]:
    """The beginning of a table of keys."""
    yield from [".. list-table::", "   :header-rows: 1", "   :widths: 24 20 16 40", ""]
    yield from row("key", "type", "default", "meaning")


def section_of(hint: Any) -> type | None:
    """The dataclass of a nested section, also optional or inside ``dict[str, ...]``; else None."""
    if typing.get_origin(hint) is dict:
        hint = typing.get_args(hint)[1]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next((a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)), hint)
    if not isinstance(hint, type) or not dataclasses.is_dataclass(hint):
        return None
    return None if issubclass(hint, Component) else hint


def row(*cells: str) -> Iterator[str]:
    """One row of a list-table."""
    for number, cell in enumerate(cells):
        yield f"   {'* -' if number == 0 else '  -'} {' '.join(cell.split())}"


def spell_type(hint: Any, kind: str | None) -> str:
    """A type as a reader of YAML would say it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(f"``{value}``" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(spell_type(a, kind) for a in arguments)
    if origin is list:
        return f"list of {spell_type(arguments[0], kind)}"
    if origin is dict:
        return "mapping"
    if hint is type(None):
        return "null"
    if hint is Any:
        return "anything"
    if dataclasses.is_dataclass(hint):
        return f"{kind} component" if kind else "component"
    return hint.__name__


def spell_default(field: dataclasses.Field[Any]) -> str:
    """A default as YAML writes it; required keys say so."""
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return "**required**"
    return spell_value(value.name if isinstance(value, Component) else value)


def spell_value(value: object) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "``null``"
    if value == "":
        return '``""``'
    return f"``{str(value).lower() if isinstance(value, bool) else value}``"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("config-reference", ConfigReference)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
