"""Line charts."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.charts.style import CARD, FONT_SIZE, INK, MUTED, NUM_COLOURS, colour
from lavis_lite.report.charts.svg import draw, figure, set_ticks, wrapped
from lavis_lite.report.render import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SMOOTH_FROM = 24  # points from which a line is smoothed and the raw values stand behind it
_LETTERS = 44  # of a name in a line

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named series of (x, y); ``colour`` numbers one of the page's six colours."""

    name: str
    points: Sequence[Point]
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines over a common x axis.

    Args:
        title: what y is.
        lines: at least one.
        guide: a horizontal line with its label, such as the loss of mere guessing.
        x: what x is.
        smooth: whether long lines are smoothed.
        measured: the few x that all lines have points at. Each is marked and labelled, y begins
            at 0, and x is logarithmic where they are above 0 and span a factor of 4 or more.
    """

    title: str
    lines: Sequence[Line]
    guide: tuple[float, str] | None = None
    x: str = "step"
    smooth: bool = True
    measured: Sequence[float] = ()

    @property
    def is_logarithmic(self) -> bool:
        """True if equal steps of x are equal factors."""
        low, high = min(self.measured, default=0), max(self.measured, default=0)
        return low > 0 and high >= 4 * low


def line_chart(chart: Chart) -> Html:
    """Return one chart as a figure with its title, and a legend of several lines."""
    series = {
        number: points
        for number, line in enumerate(chart.lines)
        if (points := _finite(line.points))
    }
    if not series:
        return figure(chart.title, None)
    names = [(chart.lines[n].name, chart.lines[n].colour % NUM_COLOURS) for n in series]
    drawing = draw(
        functools.partial(_paint, chart, series),
        f"{chart.title} by {chart.x}",
        "; ".join(_described(chart.lines[n].name, points, chart.x) for n, points in series.items()),
    )
    return figure(chart.title, drawing, names if len(names) > 1 else [])


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Return a centred moving average over ``share`` of the points; shorter windows at the ends."""
    reach = max(1, round(len(points) * share / 2))
    averaged = []
    for place, (x, _) in enumerate(points):
        near = min(reach, place, len(points) - 1 - place)
        window = points[place - near : place + near + 1]
        averaged.append((x, sum(y for _, y in window) / len(window)))
    return averaged


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(a, b) for a, b in points if b is not None and math.isfinite(b)]


def _described(name: str, points: Sequence[Point], x: str) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if len(points) == 1:
        return f"{name}: {start:,.4g} at {x} {first:,g}"
    return f"{name}: from {start:,.4g} at {x} {first:,g} to {end:,.4g} at {x} {last:,g}"


def _paint(chart: Chart, series: Mapping[int, Sequence[Point]], axes: Axes) -> None:
    if chart.is_logarithmic:
        axes.set_xscale("log")
    for number, points in series.items():
        _line(chart, points, colour(chart.lines[number].colour), axes)
    _ticks(chart, axes)
    if chart.guide:
        _guide(*chart.guide, axes)
    if chart.measured:
        axes.set_ylim(bottom=0)
    scale = ", logarithmic" if chart.is_logarithmic else ""
    axes.set_xlabel(wrapped(f"{chart.x}{scale}", _LETTERS), loc="right")


def _line(chart: Chart, points: Sequence[Point], colour: str, axes: Axes) -> None:
    marker = "o" if chart.measured or len(points) == 1 else None
    if chart.smooth and len(points) >= _SMOOTH_FROM:
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1, alpha=0.3)
        points = smoothed(points)
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker)


def _ticks(chart: Chart, axes: Axes) -> None:
    set_ticks(axes.yaxis, 5, "{:,g}".format)
    if chart.measured:
        axes.set_xticks(list(chart.measured), [f"{value:,g}" for value in chart.measured])
        axes.minorticks_off()
    else:
        set_ticks(axes.xaxis, 5, "{:,g}".format)


def _guide(value: float, label: str, axes: Axes) -> None:
    axes.axhline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    low, high = axes.get_ylim()
    above = value < low + 0.9 * (high - low)
    text = axes.annotate(
        wrapped(label, _LETTERS),
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        horizontalalignment="right",
        verticalalignment="bottom" if above else "top",
        color=INK,
        fontsize=FONT_SIZE,
        bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )
    text.set_in_layout(False)  # the axes keep their room
