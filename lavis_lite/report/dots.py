"""Values of a few repetitions as dots, a row for each name, as inline SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_lite.report.charts import Scale, figure, label, ticks
from lavis_lite.report.markup import Html, join, tag

_WIDTH, _LEFT, _RIGHT, _ROW, _BOTTOM = 340, 118, 12, 19, 22
_LONGEST = 20  # letters of a name that fit


@dataclass(frozen=True)
class Dots:
    """``rows`` are the values of each name, all of one kind; ``title`` says which."""

    title: str
    rows: Mapping[str, Sequence[float]]


def dot_chart(dots: Dots) -> Html:
    """One chart as a figure with its title."""
    values = [value for row in dots.rows.values() for value in row]
    if not values:
        return figure(dots.title, tag("p", "no values yet", class_="note"))
    room = (max(values) - min(values)) * 0.06 or abs(values[0]) * 0.1 or 1.0
    x = Scale(min(values) - room, max(values) + room, _LEFT, _WIDTH - _RIGHT)
    bottom = len(dots.rows) * _ROW + 6
    drawn = [_grid(x, bottom)]
    for number, (name, row) in enumerate(dots.rows.items()):
        drawn.append(_row(name, row, x, number * _ROW + _ROW / 2 + 3))
    box = f"0 0 {_WIDTH} {bottom + _BOTTOM}"
    described = f"{dots.title}: a dot per seed"
    return figure(dots.title, tag("svg", drawn, viewBox=box, role="img", aria_label=described))


def _grid(x: Scale, bottom: float) -> Html:
    drawn = []
    for value in ticks(x.low, x.high):
        place = x(value)
        drawn.append(tag("line", x1=place, x2=place, y1=2, y2=bottom, class_="grid"))
        drawn.append(label(place, bottom + 14, f"{value:,g}", "middle"))
    return join(drawn)


def _row(name: str, row: Sequence[float], x: Scale, y: float) -> Html:
    short = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    mean = x(statistics.fmean(row))
    return join(
        label(_LEFT - 8, y + 4, short, "end"),
        tag("line", x1=mean, x2=mean, y1=y - 6, y2=y + 6, class_="axis"),
        [tag("circle", cx=x(value), cy=y, r=3.2, class_="dot c0") for value in row],
    )
