"""The arms of a sweep's grid as tables with an axis down and an axis across."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lavis_lite.report.charts import Dots, dot_chart
from lavis_lite.report.render import Html, side_by_side
from lavis_lite.report.tables import Cell, TableRow, render_table
from lavis_lite.runners.sweep.seeds import written


class Grid(NamedTuple):
    """A measure by rows (all axes but the last, combined) and columns (the last axis).

    ``down`` names the axes of the rows; ``cells`` maps row and column to a statistic, see
    ``lavis_lite.runners.sweep.seeds``.
    """

    measure: str
    down: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], Mapping[str, Any]]

    @property
    def measured(self) -> list[str]:
        """The columns in which some row has a value."""
        return [c for c in self.columns if any(self.cells[r, c]["seeds"] for r in self.rows)]


def read_grid(table: Mapping[str, Any], measure: str) -> Grid:
    """One measure of the record of a sweep that has a grid of at least two axes."""
    *down, across = table["grid"].values()
    rows = [", ".join(choices) for choices in itertools.product(*down)]
    cells = {
        (row, column): table["arms"][f"{row}, {column}"]["values"][measure]
        for row in rows
        for column in across
    }
    return Grid(measure, ", ".join(list(table["grid"])[:-1]), rows, across, cells)


def dots(grid: Grid) -> Dots:
    """The means of a grid: a row each, a colour for each column."""
    rows = {row: [grid.cells[row, c]["mean"] for c in grid.columns] for row in grid.rows}
    axis = ", ".join(grid.columns)
    return Dots(grid.measure, rows, kinds=grid.columns, about=f"a dot each for {axis}")


def grids(table: Mapping[str, Any]) -> Html:
    """All measures: tables, then charts of the means."""
    found = [(read_grid(table, name), what) for name, what in table["measures"].items()]
    tables = side_by_side([_matrix(*grid) for grid in found], "tables")
    return tables + side_by_side([dot_chart(dots(grid)) for grid, _ in found], "charts")


def _matrix(grid: Grid, what: Mapping[str, Any]) -> Html:
    rows = [
        TableRow(row, [Cell(written(grid.cells[row, c], what["digits"])) for c in grid.measured])
        for row in grid.rows
    ]
    return render_table([grid.down, *grid.measured], rows, grid.measure)
