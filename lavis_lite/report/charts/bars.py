"""Horizontal bars that show how a whole is divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_lite.report.charts.lines import NUM_COLOURS
from lavis_lite.report.markup import Html, tag


@dataclass(frozen=True)
class Part:
    """A part of a whole: what it is, how much, and one of the page's six colours; None is grey."""

    name: str
    value: float
    colour: int | None = None


def divided_bars(rows: Mapping[str, Sequence[Part]], digits: int = 0, unit: str = "") -> Html:
    """A bar per row, divided by its parts, with each row's total; parts of nothing are left out.

    Args:
        rows: name -> parts.
        digits: of the totals and of the values that a part shows when pointed at.
        unit: after a value.
    """
    return tag(
        "div", [_row(name, parts, digits, unit) for name, parts in rows.items()], class_="divided"
    )


def _row(name: str, parts: Sequence[Part], digits: int, unit: str) -> Html:
    total = sum(part.value for part in parts)
    shown = [part for part in parts if part.value > 0]
    bar = tag("div", [_part(part, total, digits, unit) for part in shown], class_="whole")
    amount = tag("span", f"{total:,.{digits}f}{unit}", class_="amount")
    return tag("div", tag("span", name, class_="name"), bar, amount, class_="row")


def _part(part: Part, total: float, digits: int, unit: str) -> Html:
    share = 100 * part.value / total
    colour = "rest" if part.colour is None else f"c{part.colour % NUM_COLOURS}"
    said = f"{share:.0f} %" if share >= 7 else None
    title = f"{part.name}: {part.value:,.{digits}f}{unit} ({share:.1f} %)"
    return tag("i", said, style=f"width:{share:.2f}%", class_=colour, title=title)
