"""Line charts as inline SVG; colours come from the page's style."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_lite.report.markup import Html, join, tag

WIDTH, HEIGHT = 340, 200
LEFT, RIGHT, TOP, BOTTOM = 40, 8, 10, 30
NUM_COLOURS = 6
_SMOOTH_FROM = 24  # points from which a line is smoothed and the raw values stand behind it

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
        """Whether equal steps of x are equal factors."""
        low, high = min(self.measured, default=0), max(self.measured, default=0)
        return low > 0 and high >= 4 * low


@dataclass(frozen=True)
class Scale:
    """From a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(chart: Chart) -> Html:
    """One chart as a figure with its title."""
    place = math.log if chart.is_logarithmic else float
    series = [(line, [(place(a), b) for a, b in _finite(line.points)]) for line in chart.lines]
    points = [point for _, kept in series for point in kept]
    if not points:
        return figure(chart.title, tag("p", "no finite values", class_="note"))
    guides = [chart.guide[0]] if chart.guide else []
    x = _scale([p[0] for p in points], LEFT, WIDTH - RIGHT, margin=0)
    y = _scale([p[1] for p in points] + guides, HEIGHT - BOTTOM, TOP, margin=0.06)
    if chart.measured:
        y = Scale(0.0, y.high, y.start, y.end)
    named = chart.measured or ticks(x.low, x.high, 5)
    drawn = [_axes(x, y, chart, {place(value): f"{value:,g}" for value in named})]
    if chart.guide:
        drawn.append(_guide(x, y, *chart.guide))
    for line, kept in series:
        drawn.append(_line(line, kept, x, y, chart.smooth))
        if chart.measured:
            drawn += [_dot(line, x(a), y(b)) for a, b in kept]
    return figure(chart.title, svg(f"{chart.title} by {chart.x}", drawn))


def _line(line: Line, points: list[Point], x: Scale, y: Scale, smooth: bool) -> Html:
    colour = f"c{line.colour % NUM_COLOURS}"
    if not points:
        return Html("")
    if len(points) == 1:
        return _dot(line, x(points[0][0]), y(points[0][1]))
    if not smooth or len(points) < _SMOOTH_FROM:
        return tag("polyline", points=_path(points, x, y), class_=f"line {colour}")
    return join(
        tag("polyline", points=_path(points, x, y), class_=f"line raw {colour}"),
        tag("polyline", points=_path(smoothed(points), x, y), class_=f"line {colour}"),
    )


def _dot(line: Line, x: float, y: float) -> Html:
    return tag("circle", cx=x, cy=y, r=3, class_=f"dot c{line.colour % NUM_COLOURS}")


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """A centred moving average over ``share`` of the points; shorter windows at the ends."""
    reach = max(1, round(len(points) * share / 2))
    averaged = []
    for place, (x, _) in enumerate(points):
        near = min(reach, place, len(points) - 1 - place)
        window = points[place - near : place + near + 1]
        averaged.append((x, sum(y for _, y in window) / len(window)))
    return averaged


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(a):g},{y(b):g}" for a, b in points)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(a, b) for a, b in points if b is not None and math.isfinite(b)]


def _scale(values: Sequence[float], start: float, end: float, margin: float) -> Scale:
    low, high = min(values), max(values)
    room = (high - low) * margin or (0 if high > low else abs(high) * 0.1 or 1.0)
    return Scale(low - room, high + room, start, end)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers in [low, high], about so many."""
    raw = (high - low) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = min((unit * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _axes(x: Scale, y: Scale, chart: Chart, labels: Mapping[float, str]) -> Html:
    drawn = []
    for value in ticks(y.low, y.high):
        drawn.append(rule(y(value), "grid"))
        drawn.append(label(LEFT - 6, y(value) + 3.5, f"{value:,g}", "end"))
    for value, text in labels.items():
        drawn.append(label(x(value), HEIGHT - BOTTOM + 15, text, "middle"))
    drawn.append(rule(HEIGHT - BOTTOM, "axis"))
    scale = ", logarithmic" if chart.is_logarithmic else ""
    drawn.append(label(WIDTH - RIGHT, HEIGHT - 2, f"{chart.x}{scale}", "end"))
    return join(drawn)


def rule(y: float, class_: str) -> Html:
    return tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_=class_)


def _guide(x: Scale, y: Scale, value: float, label: str) -> Html:
    height = y(value)
    above = height > TOP + 14
    return join(
        rule(height, "guide"),
        tag(
            "text",
            label,
            x=WIDTH - RIGHT,
            y=height - 4 if above else height + 12,
            text_anchor="end",
            class_="guide-label",
        ),
    )


def label(x: float, y: float, text: str, anchor: str) -> Html:
    return tag("text", text, x=x, y=y, text_anchor=anchor)


def svg(description: str, children: Sequence[Html]) -> Html:
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", children, viewBox=box, role="img", aria_label=description)


def figure(title: str, drawing: Html) -> Html:
    return tag("figure", tag("figcaption", title), drawing, class_="chart")


def legend(names: Sequence[str]) -> Html:
    """Names with the colours that lines and bars of these numbers have."""
    items = [
        tag("span", tag("i", class_=f"swatch c{number % NUM_COLOURS}"), name)
        for number, name in enumerate(names)
    ]
    return tag("p", items, class_="legend")
