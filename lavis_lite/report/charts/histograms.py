"""Histograms as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lavis_lite.report.charts.lines import (
    BOTTOM,
    HEIGHT,
    LEFT,
    NUM_COLOURS,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    figure,
    label,
    rule,
    svg,
    ticks,
)
from lavis_lite.report.markup import Html, join, tag


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
    """One histogram as a figure with its title."""
    shares = {name: _shares(values, histogram) for name, values in histogram.series.items()}
    top = max((share for bars in shares.values() for share in bars), default=0) or 1.0
    x = Scale(histogram.low, histogram.high, LEFT, WIDTH - RIGHT)
    y = Scale(0, top * 1.08, HEIGHT - BOTTOM, TOP)
    drawn = [_share_axes(x, y, histogram.x)]
    for number, bars in enumerate(shares.values()):
        drawn.append(_bars(bars, histogram, x, y, f"c{number % NUM_COLOURS}"))
    if histogram.threshold:
        value, label = histogram.threshold
        drawn.append(tag("line", x1=x(value), x2=x(value), y1=TOP, y2=y(0), class_="guide"))
        drawn.append(tag("text", label, x=x(value) + 4, y=TOP + 9, class_="guide-label"))
    return figure(histogram.title, svg(f"{histogram.title}: shares by {histogram.x}", drawn))


def _share_axes(x: Scale, y: Scale, x_label: str) -> Html:
    drawn = []
    for value in ticks(0, y.high):
        drawn.append(rule(y(value), "grid"))
        drawn.append(label(LEFT - 6, y(value) + 3.5, f"{100 * value:g} %", "end"))
    for value in ticks(x.low, x.high, 5):
        drawn.append(label(x(value), HEIGHT - BOTTOM + 15, f"{value:g}", "middle"))
    drawn.append(rule(HEIGHT - BOTTOM, "axis"))
    drawn.append(label(WIDTH - RIGHT, HEIGHT - 2, x_label, "end"))
    return join(drawn)


def _shares(values: Sequence[float], histogram: Histogram) -> list[float]:
    counts = [0] * histogram.num_bars
    kept = [value for value in values if math.isfinite(value)]
    for value in kept:
        share = (value - histogram.low) / (histogram.high - histogram.low)
        counts[min(max(int(share * histogram.num_bars), 0), histogram.num_bars - 1)] += 1
    return [count / max(1, len(kept)) for count in counts]


def _bars(bars: list[float], histogram: Histogram, x: Scale, y: Scale, colour: str) -> Html:
    width = (histogram.high - histogram.low) / histogram.num_bars
    corners = [(x(histogram.low), y(0))]
    for number, share in enumerate(bars):
        left = histogram.low + number * width
        corners += [(x(left), y(share)), (x(left + width), y(share))]
    corners.append((x(histogram.high), y(0)))
    return tag(
        "polyline", points=" ".join(f"{a:g},{b:g}" for a, b in corners), class_=f"bars {colour}"
    )
