"""Ratios as horizontal bars, each with the target that it should stay below, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lavis_lite.report.charts.lines import Scale, figure, label, ticks
from lavis_lite.report.markup import Html, join, tag

_WIDTH, _ROW, _BOTTOM, _RIGHT = 520, 30, 22, 44
_TEXT = 36  # that a value takes


@dataclass(frozen=True)
class Ratio:
    """What is compared, the ratio that was found, and the highest that is wanted, if any."""

    name: str
    value: float
    at_most: float | None = None


def ratio_chart(title: str, ratios: Sequence[Ratio]) -> Html:
    """One chart as a figure with its title; a dashed line stands at 1, a mark at each target."""
    most = max([1.05, *(1.05 * max(one.value, one.at_most or 0) for one in ratios)])
    x = Scale(0.0, most, 4, _WIDTH - _RIGHT)
    bottom = len(ratios) * _ROW + 4
    drawn = [
        join(
            tag("line", x1=x(value), x2=x(value), y1=2, y2=bottom, class_="grid"),
            label(x(value), bottom + 14, f"{value:g}", "middle"),
        )
        for value in ticks(0.0, most)
    ]
    drawn.append(tag("line", x1=x(1), x2=x(1), y1=2, y2=bottom, class_="guide"))
    drawn += [_bar(one, x, number * _ROW + 4) for number, one in enumerate(ratios)]
    box = f"0 0 {_WIDTH} {bottom + _BOTTOM}"
    return figure(title, tag("svg", drawn, viewBox=box, role="img", aria_label=title))


def _bar(one: Ratio, x: Scale, top: float) -> Html:
    reached = one.at_most is None or one.value <= one.at_most
    bar = tag(
        "rect",
        x=x(0),
        y=top + 14,
        width=round(x(one.value) - x(0), 1),
        height=9,
        class_=f"bars {'c0' if reached else 'c1'}",
    )
    mark, end = None, x(one.value)
    if one.at_most is not None:
        place = x(one.at_most)
        mark = tag("line", x1=place, x2=place, y1=top + 11, y2=top + 26, class_="axis")
        end = place if end <= place < end + _TEXT else end  # the mark would cross the text
    value = label(end + 5, top + 22, f"{one.value:.2f}", "start")
    return join(label(x(0), top + 10, one.name, "start"), bar, mark, value)
