"""Tables of figures: metrics of several runs, before and after, names and values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lavis_lite.metrics.columns import Column as Column
from lavis_lite.report.render import Html, render

Row = Mapping[str, float | None]


@dataclass(frozen=True)
class Cell:
    """A cell's text; ``verdict`` is ``best``, ``gain``, ``loss`` or ``none``, which mutes it."""

    text: str
    verdict: str | None = None
    span: int = 1


@dataclass(frozen=True)
class TableRow:
    """A row of a table: what it is about, a remark on that, and its cells."""

    label: str
    cells: Sequence[Cell]
    note: str = ""


def render_table(
    head: Sequence[str],
    rows: Sequence[TableRow],
    caption: str = "",
    *,
    kind: str = "metrics",
    of: str = "",
    groups: Sequence[tuple[str, int]] = (),
) -> Html:
    """Return a table in a box that scrolls where the page is narrower.

    Args:
        head: names of the columns, the labels' first; none leaves the head out.
        rows: from top to bottom.
        caption: what the table shows.
        kind: CSS classes; ``metrics`` has numbers, ``pairs`` texts that wrap.
        of: how many of what its figures stand for, such as ``300 images``.
        groups: names that stand over so many columns each, after the labels' one.
    """
    return render(
        "table.html.jinja",
        head=head, rows=rows, caption=caption, kind=kind, of=of, groups=groups,
    )  # fmt: skip


def metric_table(
    columns: Sequence[Column],
    rows: Mapping[str, Row],
    caption: str = "",
    *,
    row_name: str = "run",
) -> Html:
    """Return a table whose rows are runs and whose columns are figures; a gap is a dash."""
    best = {column.key: _best(column, rows) for column in columns}
    body = [
        TableRow(name, [_cell(column, row.get(column.key), best[column.key]) for column in columns])
        for name, row in rows.items()
    ]
    grouped = groupby(columns, lambda column: column.group)
    groups = [(name, len(list(part))) for name, part in grouped]
    head = [f"{c.label}, {c.unit}" if c.unit else c.label for c in columns]
    shown = groups if any(name for name, _ in groups) else []
    return render_table([row_name, *head], body, caption, groups=shown)


def figure_table(
    columns: Sequence[Column], runs: Mapping[str, Row], caption: str = "", of: str = ""
) -> Html:
    """Return a table whose rows are figures, with their units, and whose columns are runs."""
    body = []
    for column in columns:
        best = _best(column, runs)
        cells = [_cell(column, row.get(column.key), best) for row in runs.values()]
        body.append(TableRow(column.name, cells, column.unit))
    return render_table(["figure", *runs], body, caption, of=of)


def _best(column: Column, rows: Mapping[str, Row]) -> float | None:
    values = [
        value
        for row in rows.values()
        if (value := row.get(column.key)) is not None and math.isfinite(value)
    ]
    if column.better == 0 or len(values) < 2 or min(values) == max(values):
        return None
    return max(values) if column.better > 0 else min(values)


def _cell(column: Column, value: float | None, best: float | None) -> Cell:
    if value is None:
        return Cell("–", "none")
    verdict = "best" if best is not None and value == best else None
    return Cell(f"{value:.{column.digits}f}", verdict)


@dataclass(frozen=True)
class Change:
    """A figure before and after; ``better`` and ``unit`` as for Column."""

    label: str
    before: float | None
    after: float | None
    digits: int = 1
    better: int = 1
    unit: str = ""


def before_after(
    changes: Sequence[Change], before: str, after: str, caption: str = "", of: str = ""
) -> Html:
    """Return figures of two runs side by side, with the difference and whether it is a gain."""
    rows = [TableRow(change.label, _change_cells(change), change.unit) for change in changes]
    return render_table(
        ["figure", before, after, "change"], rows, caption, of=of, kind="metrics changes"
    )


def _change_cells(change: Change) -> list[Cell]:
    def number(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value:{sign}.{change.digits}f}"

    difference = None
    if change.before is not None and change.after is not None:
        # Rounded as it is shown, so that what reads as nothing is no loss; + 0.0 drops a minus.
        difference = round(change.after - change.before, change.digits) + 0.0
    gain = (difference or 0) * change.better
    verdict = "gain" if gain > 0 else "loss" if gain < 0 else None
    return [
        Cell(number(change.before)),
        Cell(number(change.after)),
        Cell(number(difference, "+").replace("-", "−"), verdict),
    ]


def key_values(values: Mapping[str, object], caption: str = "") -> Html:
    """Return names with their values in two columns; long values may wrap."""
    rows = [TableRow(name, [Cell(str(value))]) for name, value in values.items()]
    return render_table([], rows, caption, kind="pairs")
