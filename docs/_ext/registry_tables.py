"""Directives that print the registry: ``contract`` and ``registered``.

.. contract:: loss        what a loss must accept and return
.. registered:: loss      a table of the registered losses with their arguments
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite import registry
from lavis_lite.registry import cards


class FromRegistry(Directive):
    """A directive whose argument is a kind and whose content is generated."""

    required_arguments = 1

    def lines(self, kind: str) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        content = StringList(list(self.lines(self.arguments[0])), f"registry {self.arguments[0]}")
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, content, holder)
        return holder.children


class ContractText(FromRegistry):
    """The contract of a kind."""

    def lines(self, kind: str) -> Iterator[str]:
        yield from inspect.cleandoc(registry.kinds()[kind]).splitlines()


class Registered(FromRegistry):
    """A table of the names of a kind."""

    def lines(self, kind: str) -> Iterator[str]:
        yield from [".. list-table::", "   :header-rows: 1", "   :width: 100%", "   :widths: 26 74"]
        yield from ["", "   * - name", "     - what it is, and its arguments"]
        for name in registry.names(kind):
            builder = registry.get(kind, name)
            yield f"   * - ``{name}``"
            yield f"     - {first_sentence(builder)}"
            if kind == "model" and (types := cards.types(name)):
                yield from ["", f"       types: {', '.join(f'``{type}``' for type in types)}"]
            if arguments := list(spell_arguments(kind, name)):
                yield ""
                yield f"       {', '.join(arguments)}"


def first_sentence(builder: Any) -> str:
    """The first paragraph of a builder's documentation, on one line."""
    target = getattr(builder, "func", builder)  # a wildcard's builder is a partial
    paragraph = (inspect.getdoc(target) or "").split("\n\n")[0]
    return " ".join(paragraph.split()) or "\\"


def spell_arguments(kind: str, name: str) -> Iterator[str]:
    """``key`` or ``key: default``, as in YAML, for each argument that a config may give."""
    if name.endswith("*"):
        return
    for argument, parameter in registry.entry(kind, name).arguments.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = parameter.default
        if default is parameter.empty:
            yield f"``{argument}``"
        else:
            yield f"``{argument}: {json.dumps(default, default=str)}``"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("contract", ContractText)
    app.add_directive("registered", Registered)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
