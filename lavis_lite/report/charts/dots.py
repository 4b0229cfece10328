"""A few values as dots, a row for each name, as inline SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_lite.report.charts.lines import NUM_COLOURS, Scale, figure, label, legend, ticks
from lavis_lite.report.markup import Html, join, tag

_WIDTH, _LEFT, _RIGHT, _ROW, _BOTTOM = 340, 118, 12, 19, 22
_LONGEST = 20  # letters of a name that fit


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
    rows: Mapping[str, Sequence[float | None]]
    kinds: Sequence[str] = ()
    about: str = "a dot per seed"


def dot_chart(dots: Dots) -> Html:
    """One chart as a figure with its title."""
    values = [value for row in dots.rows.values() for value in row if value is not None]
    if not values:
        return figure(dots.title, tag("p", "no values yet", class_="note"))
    room = (max(values) - min(values)) * 0.06 or abs(values[0]) * 0.1 or 1.0
    x = Scale(min(values) - room, max(values) + room, _LEFT, _WIDTH - _RIGHT)
    bottom = len(dots.rows) * _ROW + 6
    drawn = [_grid(x, bottom)]
    for number, (name, row) in enumerate(dots.rows.items()):
        drawn.append(_row(name, row, x, number * _ROW + _ROW / 2 + 3, bool(dots.kinds)))
    box = f"0 0 {_WIDTH} {bottom + _BOTTOM}"
    described = f"{dots.title}: {dots.about}"
    picture = tag("svg", drawn, viewBox=box, role="img", aria_label=described)
    return figure(dots.title, join(picture, legend(dots.kinds) if dots.kinds else None))


def _grid(x: Scale, bottom: float) -> Html:
    drawn = []
    for value in ticks(x.low, x.high):
        place = x(value)
        drawn.append(tag("line", x1=place, x2=place, y1=2, y2=bottom, class_="grid"))
        drawn.append(label(place, bottom + 14, f"{value:,g}", "middle"))
    return join(drawn)


def _row(name: str, row: Sequence[float | None], x: Scale, y: float, coloured: bool) -> Html:
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    found = [(number, value) for number, value in enumerate(row) if value is not None]
    drawn = [label(_LEFT - 8, y + 4, short, "end")]
    if found and not coloured:
        mean = x(statistics.fmean(value for _, value in found))
        drawn.append(tag("line", x1=mean, x2=mean, y1=y - 6, y2=y + 6, class_="axis"))
    for number, value in found:
        colour = number % NUM_COLOURS if coloured else 0
        drawn.append(tag("circle", cx=x(value), cy=y, r=3.2, class_=f"dot c{colour}"))
    return join(drawn)
