"""Histograms."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lavis_lite.report.charts.style import CARD, FONT_SIZE, INK, MUTED, NUM_COLOURS, colour
from lavis_lite.report.charts.svg import draw, figure, set_ticks, wrapped
from lavis_lite.report.render import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LETTERS = 44  # of a name in a line


@dataclass(frozen=True)
class Histogram:
    """Distributions of a score, one per name, drawn over each other as shares.

    Args:
        title: what is counted.
        series: name -> values.
        low, high: range of the score; values outside count into the last bars.
        num_bars: how many.
        threshold: where the score decides, with its label.
        x: what the score is.
    """

    title: str
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    low: float = 0.0
    high: float = 1.0
    num_bars: int = 25
    threshold: tuple[float, str] | None = None
    x: str = "score"


def histogram_chart(histogram: Histogram) -> Html:
    """Return one histogram as a figure with its title and legend."""
    finite = {name: _finite(values) for name, values in histogram.series.items()}
    drawing = draw(
        functools.partial(_paint, histogram, [shares(v, histogram) for v in finite.values()]),
        f"{histogram.title}: shares by {histogram.x}",
        "; ".join(_described(name, values) for name, values in finite.items()) or "no values",
    )
    names = [(name, number % NUM_COLOURS) for number, name in enumerate(finite)]
    return figure(histogram.title, drawing, names)


def shares(values: Sequence[float], histogram: Histogram) -> list[float]:
    """Return the share of the finite values in each bar of a histogram."""
    counts = [0] * histogram.num_bars
    finite = _finite(values)
    for value in finite:
        share = (value - histogram.low) / (histogram.high - histogram.low)
        counts[min(max(int(share * histogram.num_bars), 0), histogram.num_bars - 1)] += 1
    return [count / max(1, len(finite)) for count in counts]


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _described(name: str, values: Sequence[float]) -> str:
    if not values:
        return f"{name}: no values"
    middle = sorted(values)[len(values) // 2]
    return f"{name}: {len(values):,} values, median {middle:.3g}"


def _paint(histogram: Histogram, series: Sequence[Sequence[float]], axes: Axes) -> None:
    width = (histogram.high - histogram.low) / histogram.num_bars
    edges = [histogram.low + width * number for number in range(histogram.num_bars + 1)]
    for number, bars in enumerate(series):
        axes.stairs(
            bars,
            edges,
            fill=True,
            facecolor=(colour(number), 0.28),
            edgecolor=colour(number),
            linewidth=1.5,
        )
    top = max((share for bars in series for share in bars), default=0) or 1.0
    axes.set_ylim(0, 1.08 * top)
    axes.set_xlim(histogram.low, histogram.high)
    set_ticks(axes.yaxis, 4, lambda share: f"{100 * share:g} %")
    set_ticks(axes.xaxis, 5, "{:g}".format)
    axes.set_xlabel(wrapped(histogram.x, _LETTERS), loc="right")
    if histogram.threshold:
        _threshold(*histogram.threshold, axes)


def _threshold(value: float, label: str, axes: Axes) -> None:
    axes.axvline(value, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    low, high = axes.get_xlim()
    right = value > (low + high) / 2 + 0.1 * (high - low)  # the label stands left of the line
    text = axes.annotate(
        wrapped(label, _LETTERS),
        (value, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if right else 4, -1),
        textcoords="offset points",
        horizontalalignment="right" if right else "left",
        verticalalignment="top",
        color=INK,
        fontsize=FONT_SIZE,
        bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )
    text.set_in_layout(False)  # the axes keep their room
