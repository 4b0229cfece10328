"""The directive ``weight-cards``: released files, what was published of them, what they load into.

.. weight-cards::

prints one table for every layout of every package, made from their cards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite.registry.weight_cards import WeightCard, weight_cards


class WeightCards(Directive):
    """A table of released files for each layout."""

    def run(self) -> list[nodes.Node]:
        holder = nodes.section(document=self.state.document)
        content = StringList(list(lines()), "weight cards")
        nested_parse_with_titles(self.state, content, holder)
        return holder.children


def lines() -> Iterator[str]:
    """RST of all cards, grouped by what the files hold."""
    cards = list(weight_cards().values())
    for package, layout in dict.fromkeys((card.package, card.layout) for card in cards):
        group = [card for card in cards if (card.package, card.layout) == (package, layout)]
        project = package.rpartition(".")[2]
        yield from [f".. rubric:: ``{project}``, ``{layout}``: {group[0].holds}", ""]
        yield from [".. list-table::", "   :header-rows: 1", "   :widths: 34 38 28", ""]
        yield from row("file", "what it is, published figures", "loads into")
        for card in group:
            yield from row(file_cell(card), what_cell(card), models_cell(card))
        yield ""


def file_cell(card: WeightCard) -> list[str]:
    """Name with address, size, images, digest."""
    digest = [f"sha256 ``{card.sha256[:12]}...``"] if card.sha256 else []
    size = f"{card.size}, {card.image_size} pixels, {card.licence}"
    return [f"`{card.file} <{card.url}>`__", size, *digest]


def what_cell(card: WeightCard) -> list[str]:
    """Task and figures."""
    figures = [
        f"{data}: {', '.join(f'{metric} {value:g}' for metric, value in found.items())}"
        for data, found in card.results.items()
    ]
    return [card.trained_for, *figures, f"({card.source})"]


def models_cell(card: WeightCard) -> list[str]:
    """Types that it fills, its own in bold, and those that need training."""
    own = card.released_as
    fills = [f"**{spelled}**" for spelled in own]
    fills += [f"``{spelled}``" for spelled in card.types(*card.fills) if spelled not in own]
    cells = [", ".join(fills)]
    if starts := card.types(*card.starts):
        cells.append(f"to be trained: {', '.join(f'``{spelled}``' for spelled in starts)}")
    return cells


def row(*cells: str | list[str]) -> Iterator[str]:
    """One row of a list-table; a list is one paragraph for each of its texts."""
    for number, cell in enumerate(cells):
        texts = [cell] if isinstance(cell, str) else cell
        for place, text in enumerate(texts):
            lead = ("   * -" if number == 0 else "     -") if place == 0 else "      "
            yield f"{lead} {' '.join(text.split())}"
            yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("weight-cards", WeightCards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
