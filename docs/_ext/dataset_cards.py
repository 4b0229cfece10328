"""The directive ``dataset-cards``: published datasets, what to get of them and where to put it.

.. dataset-cards::

prints a section for every card of all packages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite.data.published.cards import ROOT, DatasetCard, card, names

_FIELDS = ("task", "site", "licence", "reference", "format")


class DatasetCards(Directive):
    """A section for each card."""

    def run(self) -> list[nodes.Node]:
        holder = nodes.section(document=self.state.document)
        content = StringList([line for name in names() for line in lines(card(name))], "cards")
        nested_parse_with_titles(self.state, content, holder)
        return holder.children


def lines(card: DatasetCard) -> Iterator[str]:
    """RST of one card."""
    yield from [
        card.name,
        "-" * len(card.name),
        "",
        f"{card.summary[0].upper()}{card.summary[1:]}.",
    ]
    yield ""
    for field in _FIELDS:
        yield f":{field}: {shown(getattr(card, field))}"
    if card.also:
        yield f":LAVIS's name: {', '.join(f'``{name}``' for name in card.also)}"
    files = [(split, file) for split, listed in card.annotations.items() for file in listed]
    if files:
        yield from ["", ".. list-table::", "   :header-rows: 1", "   :widths: 12 88", ""]
        yield from ["   * - split", f"     - annotations below ``{ROOT}/``"]
        for split, file in files:
            where = f"`{file.file} <{file.url}>`__" if file.url else f"``{file.file}``, by hand"
            yield from [f"   * - ``{split}``", f"     - {where}"]
    yield from ["", *places(card), ""]


def shown(text: str) -> str:
    """Text as RST: asterisks are no emphasis, and the initial of a name begins no list."""
    return "\\ " + text.replace("*", r"\*")


def places(card: DatasetCard) -> Iterator[str]:
    """Where images or shards go, and where they come from."""
    if card.shards:
        yield f"Shards in ``{ROOT}/{card.shards}``; img2dataset makes them."
    if card.images:
        such_as = ", ".join(f"``{file}``" for file in card.images.holds)
        text = f"Images in ``{ROOT}/{card.images.folder}``, such as {such_as}"
        if card.images.urls:
            text += "; from " + ", ".join(f"`{url} <{url}>`__" for url in card.images.urls)
        yield f"{text}."
        if card.images.note:
            yield f"({card.images.note[0].upper()}{shown(card.images.note[1:])}.)"


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("dataset-cards", DatasetCards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
