"""Ratios as horizontal bars, each with the target that it should stay below."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.charts.style import FONT_SIZE, INK, MUTED, colour
from lavis_lite.report.charts.svg import draw, figure, says, set_ticks, wrapped
from lavis_lite.report.render import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE, _BAR, _AXIS = 14, 20, 24  # pixels
_LETTERS = 44  # of a name in a line
_TEXT = 0.12  # of the axis, that a value takes


@dataclass(frozen=True)
class Ratio:
    """A comparison's name, the ratio that was found, and the highest that is wanted, if any."""

    name: str
    value: float
    at_most: float | None = None

    @property
    def is_reached(self) -> bool:
        """True if the ratio is no higher than wanted."""
        return self.at_most is None or self.value <= self.at_most


def ratio_chart(title: str, ratios: Sequence[Ratio]) -> Html:
    """Return one chart as a figure with its title.

    A dashed line stands at 1, a mark at each target, and bars beyond theirs have another colour.
    """
    heights = [(wrapped(one.name, _LETTERS).count("\n") + 1) * _LINE + _BAR for one in ratios]
    drawing = draw(
        functools.partial(_paint, ratios, heights),
        title,
        "; ".join(_said(one) for one in ratios),
        height=sum(heights) + _AXIS,
    )
    missed = [("above its target", 1)] if any(not one.is_reached for one in ratios) else []
    return figure(title, drawing, [("ours, divided by the other", 0), *missed] if missed else [])


def _said(one: Ratio) -> str:
    wanted = "" if one.at_most is None else f", wanted: at most {one.at_most:.3g}"
    return f"{one.name}: {one.value:.2f}{wanted}"


def _paint(ratios: Sequence[Ratio], heights: Sequence[int], axes: Axes) -> None:
    most = max([1.0, *(max(one.value, one.at_most or 0) for one in ratios)])
    axes.set_xlim(0, most * (1.02 + _TEXT))
    axes.set_ylim(sum(heights), 0)  # pixels, downwards
    axes.axvline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for number, (one, height) in enumerate(zip(ratios, heights, strict=True)):
        _bar(one, sum(heights[:number]), height, most, axes)
    axes.set_yticks([])
    axes.grid(True, axis="x")
    axes.spines.bottom.set_visible(False)
    set_ticks(axes.xaxis, 5, "{:g}".format)


def _bar(one: Ratio, top: float, height: float, most: float, axes: Axes) -> None:
    middle = top + height - _BAR / 2
    (bar,) = axes.barh(middle, one.value, height=9, color=colour(0 if one.is_reached else 1))
    says(bar, _said(one))
    end = one.value
    if one.at_most is not None:
        axes.plot([one.at_most] * 2, [middle - 8, middle + 8], color=INK, linewidth=1.5)
        if end <= one.at_most < end + _TEXT * most:  # the mark would cross the text
            end = one.at_most
    write = functools.partial(axes.text, fontsize=FONT_SIZE, in_layout=False)
    write(0, top + 2, wrapped(one.name, _LETTERS), verticalalignment="top", color=MUTED)
    aside = end + 0.015 * most
    write(aside, middle, f"{one.value:.2f}", verticalalignment="center_baseline", color=INK)
