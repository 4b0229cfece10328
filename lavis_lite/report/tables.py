"""Tables of figures: metrics of several runs, before and after, names and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lavis_lite.metrics.columns import Column as Column
from lavis_lite.report.markup import Html, join, tag

Row = Mapping[str, float | None]


def metric_table(columns: Sequence[Column], rows: Mapping[str, Row], caption: str = "") -> Html:
    """Rows are runs, columns figures; a missing figure is a dash."""
    best = {column.key: _best(column, rows) for column in columns}
    body = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [_cell(column, row.get(column.key), best[column.key]) for column in columns],
        )
        for name, row in rows.items()
    ]
    return _table(_head(columns), body, caption, "metrics")


def _head(columns: Sequence[Column]) -> Html:
    rows = []
    if any(column.group for column in columns):
        groups = [(name, len(list(part))) for name, part in groupby(columns, lambda c: c.group)]
        cells = [
            tag("th", name, colspan=count, class_="group" if name else None)
            for name, count in groups
        ]
        rows.append(tag("tr", tag("td"), cells))
    labels = [tag("th", column.label, scope="col") for column in columns]
    return tag("thead", rows, tag("tr", tag("td"), labels))


def _best(column: Column, rows: Mapping[str, Row]) -> float | None:
    values = [
        value
        for row in rows.values()
        if (value := row.get(column.key)) is not None and math.isfinite(value)
    ]
    if column.better == 0 or len(values) < 2 or min(values) == max(values):
        return None
    return max(values) if column.better > 0 else min(values)


def _cell(column: Column, value: float | None, best: float | None) -> Html:
    if value is None:
        return tag("td", "–", class_="none")
    text = f"{value:.{column.digits}f}"
    return tag("td", text, class_="best" if best is not None and value == best else None)


@dataclass(frozen=True)
class Change:
    """A figure before and after; ``better`` as for Column."""

    label: str
    before: float | None
    after: float | None
    digits: int = 1
    better: int = 1


def before_after(changes: Sequence[Change], before: str, after: str, caption: str = "") -> Html:
    """Figures of two runs side by side, with the difference and whether it is an improvement."""
    head = tag(
        "thead",
        tag("tr", tag("td"), [tag("th", text, scope="col") for text in (before, after, "change")]),
    )
    return _table(head, [_change_row(change) for change in changes], caption, "metrics changes")


def _change_row(change: Change) -> Html:
    def number(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value:{sign}.{change.digits}f}"

    difference = None
    if change.before is not None and change.after is not None:
        difference = change.after - change.before
    gain = (difference or 0) * change.better
    verdict = "gain" if gain > 0 else "loss" if gain < 0 else None
    return tag(
        "tr",
        tag("th", change.label, scope="row"),
        tag("td", number(change.before)),
        tag("td", number(change.after)),
        tag("td", number(difference, "+").replace("-", "−"), class_=verdict),
    )


def key_values(values: Mapping[str, object], caption: str = "") -> Html:
    """Names with their values, two columns; long values may wrap."""
    body = [
        tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in values.items()
    ]
    return _table(None, body, caption, "pairs")


def _table(head: Html | None, body: Sequence[Html], caption: str, class_: str) -> Html:
    heading = tag("caption", caption) if caption else None
    table = tag("table", join(heading, head, tag("tbody", body)), class_=class_)
    return tag("div", table, class_="scroll")
