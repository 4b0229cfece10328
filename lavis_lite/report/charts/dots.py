"""A few values as dots, a row for each name."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.charts.style import MUTED, NUM_COLOURS, colour
from lavis_lite.report.charts.svg import draw, figure, set_ticks, wrapped
from lavis_lite.report.render import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _GAP, _AXIS = 14, 6, 24  # pixels
_LETTERS = 18  # of a name in a line
Rows = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Dots:
    """Rows of values, all of one kind.

    Args:
        title: which kind.
        rows: name -> values.
        kinds: what the first, second, ... value of every row is, each with a colour of its own;
            none: values of a row are repetitions, with a bar at their mean.
        about: what a dot is.
    """

    title: str
    rows: Rows
    kinds: Sequence[str] = ()
    about: str = "a dot per seed"


def dot_chart(dots: Dots) -> Html:
    """Return one chart as a figure with its title, and a legend of the kinds."""
    if not any(value is not None for row in dots.rows.values() for value in row):
        return figure(dots.title, None)
    lines = max(wrapped(name, _LETTERS).count("\n") + 1 for name in dots.rows)
    described = [
        f"{name}: {', '.join(f'{v:,.4g}' for v in row if v is not None) or 'no values'}"
        for name, row in dots.rows.items()
    ]
    drawing = draw(
        functools.partial(_paint, dots.rows, bool(dots.kinds)),
        f"{dots.title}: {dots.about}",
        "; ".join(described),
        height=len(dots.rows) * (lines * _LINE + _GAP) + _AXIS,
    )
    names = [(name, number % NUM_COLOURS) for number, name in enumerate(dots.kinds)]
    return figure(dots.title, drawing, names)


def _paint(rows: Rows, coloured: bool, axes: Axes) -> None:
    for place, row in enumerate(rows.values()):
        found = [(number, value) for number, value in enumerate(row) if value is not None]
        if found and not coloured:
            mean = statistics.fmean(value for _, value in found)
            axes.plot([mean], [place], "|", color=MUTED, markersize=12, markeredgewidth=1)
        for number, value in found:
            axes.plot([value], [place], "o", color=colour(number if coloured else 0))
    axes.set_yticks(range(len(rows)), [wrapped(name, _LETTERS) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.margins(x=0.06)
    axes.grid(False, axis="y")
    axes.grid(True, axis="x")
    axes.spines.bottom.set_visible(False)
    set_ticks(axes.xaxis, 4, "{:,g}".format)
