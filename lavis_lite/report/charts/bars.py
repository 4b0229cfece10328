"""Horizontal bars that show how a whole is divided."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.charts.style import CARD, FONT_SIZE, INK, LINE, NUM_COLOURS, colour
from lavis_lite.report.charts.svg import draw, figure, plain, says, wrapped
from lavis_lite.report.render import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _GAP = 14, 18  # pixels
_LETTERS = 16  # of a name in a line
_SHOWN_FROM = 10  # percent of a whole that have room for their number


@dataclass(frozen=True)
class Part:
    """A part of a whole: what it is, how much, and one of the page's six colours; None is grey."""

    name: str
    value: float
    colour: int | None = None


def divided_bars(
    title: str, rows: Mapping[str, Sequence[Part]], digits: int = 0, unit: str = ""
) -> Html:
    """Return a bar per row, divided by its parts, with each row's total and a legend.

    Parts of nothing are left out.

    Args:
        title: what is divided.
        rows: name -> parts.
        digits: of the totals and of the values that a part shows when pointed at.
        unit: after a value.
    """
    shown = {name: [part for part in parts if part.value > 0] for name, parts in rows.items()}
    if not any(shown.values()):
        return figure(title, None)
    described = [
        f"{name}: {', '.join(_said(part, parts, digits, unit) for part in parts) or 'nothing'}"
        for name, parts in shown.items()
    ]
    lines = max(wrapped(name, _LETTERS).count("\n") + 1 for name in shown)
    drawing = draw(
        functools.partial(_paint, shown, digits, unit),
        title,
        "; ".join(described),
        height=len(shown) * (lines * _LINE + _GAP) + 8,
    )
    legend = dict.fromkeys((part.name, part.colour) for parts in shown.values() for part in parts)
    names = [(name, None if n is None else n % NUM_COLOURS) for name, n in legend]
    return figure(title, drawing, names)


def _said(part: Part, parts: Sequence[Part], digits: int, unit: str) -> str:
    share = 100 * part.value / sum(one.value for one in parts)
    return f"{part.name} {part.value:,.{digits}f}{unit} ({share:.1f} %)"


def _paint(rows: Mapping[str, Sequence[Part]], digits: int, unit: str, axes: Axes) -> None:
    totals = []
    for place, parts in enumerate(rows.values()):
        total = sum(part.value for part in parts)
        totals.append(plain(f"{total:,.{digits}f}{unit}"))
        start = 0.0
        for part in parts:
            share = 100 * part.value / total
            filled = LINE if part.colour is None else colour(part.colour)
            (bar,) = axes.barh(place, share, left=start, height=0.72, color=filled)
            says(bar, _said(part, parts, digits, unit))
            if share >= _SHOWN_FROM:
                axes.text(
                    start + share / 2,
                    place,
                    f"{share:.0f} %",
                    color=INK if part.colour is None else CARD,
                    fontsize=FONT_SIZE,
                    horizontalalignment="center",
                    verticalalignment="center_baseline",
                )
            start += share
    axes.set_yticks(range(len(rows)), [wrapped(name, _LETTERS) for name in rows])
    axes.set_xlim(0, 100)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(False)
    axes.set_xticks([])
    axes.spines.bottom.set_visible(False)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(rows)), totals)
    beside.spines.right.set_visible(False)
    beside.tick_params(right=False)
