"""A sweep's results: means and spreads, as a record, as CSV and as a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.io.files import whole_file
from lavis_lite.report.charts import Chart, Dots, Line, dot_chart, line_chart
from lavis_lite.report.page import Section, write_report
from lavis_lite.report.render import Html, side_by_side
from lavis_lite.report.tables import Cell, TableRow, render_table
from lavis_lite.runners.sweep.config import SweepConfig
from lavis_lite.runners.sweep.grid import grids
from lavis_lite.runners.sweep.seeds import difference, statistic, written

_MOST_MEASURES = 6  # in a table


def summarise(
    config: SweepConfig, cells: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> dict[str, Any]:
    """The record of a sweep.

    Args:
        config: a SweepConfig.
        cells: arm -> seed -> measure -> value, or None where it is not there.

    Returns:
        ``measures`` (what each is), ``grid`` (axis -> choices) and ``arms``, each with ``about``,
        ``against``, ``values`` (measure -> statistic) and, where it has an ``against``,
        ``differences``.
    """
    by_measure = {
        arm: {m: {seed: found[m] for seed, found in seeds.items()} for m in config.measures}
        for arm, seeds in cells.items()
    }
    arms: dict[str, Any] = {}
    for name, arm in config.variants.items():
        arm_values = by_measure[name]
        arms[name] = {
            "about": arm.about,
            "against": arm.against,
            "values": {m: statistic(arm_values[m]) for m in config.measures},
        }
        if arm.against is not None:
            base = by_measure[arm.against]
            arms[name]["differences"] = {
                m: difference(arm_values[m], base[m]) for m in config.measures
            }
    measures = {name: vars(measure) for name, measure in config.measures.items()}
    grid = {axis: list(choices) for axis, choices in config.grid.items()}
    return {"measures": measures, "grid": grid, "arms": arms}


def write_csv(table: Mapping[str, Any], path: Path) -> None:
    """A line per arm and measure: mean, spread, and a column for each seed."""
    seeds = sorted(
        {s for arm in table["arms"].values() for v in arm["values"].values() for s in v["seeds"]},
        key=int,
    )
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["arm", "measure", "mean", "spread", *(f"seed {seed}" for seed in seeds)])
    for name, arm in table["arms"].items():
        for measure, found in arm["values"].items():
            numbers = [found["mean"], found["spread"], *(found["seeds"].get(s) for s in seeds)]
            writer.writerow([name, measure, *("" if n is None else f"{n:.6g}" for n in numbers)])
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8")


def write_page(
    table: Mapping[str, Any], config: SweepConfig, start: Mapping[str, Any], path: Path
) -> str:
    """The page of a sweep; its path.

    Args:
        table: from `summarise`, with ``runs``, ``complete`` and ``seconds``.
        config: the SweepConfig.
        start: the record of the sweep's start: command and environment.
        path: of the HTML file.
    """
    sections = [
        Section("Results", _results(table), f"Mean ± standard deviation over {_num_seeds(table)}."),
        Section("Seed by seed", _dots(table), "A dot per seed, a bar at the mean."),
    ]
    if any(arm["against"] is not None for arm in table["arms"].values()):
        note = "Taken seed by seed before the mean, so that what a seed shares is not in it."
        sections.insert(1, Section("Differences", _differences(table), note))
    if len(table["grid"]) > 1:
        sections.insert(0, Section("Grid", grids(table), "The mean over the seeds."))
    if config.charts:
        charts = [_chart(title, chart, table) for title, chart in config.charts.items()]
        sections.append(Section("Trends", side_by_side(charts, "charts")))
    state = f"{table['complete']} of {table['runs']} runs are complete; "
    return write_report(
        sections,
        path,
        config.run.title,
        command=start.get("command", ""),
        environment=start.get("environment"),
        summary=f"{len(table['arms'])} arms. {state}{table['seconds'] / 60:.0f} minutes in all.",
    )


def _num_seeds(table: Mapping[str, Any]) -> str:
    """Return how many seeds a figure is the mean of: ``1 seed``, ``2 to 5 seeds``."""
    arms = table["arms"].values()
    found = [n for arm in arms for value in arm["values"].values() if (n := len(value["seeds"]))]
    low, high = min(found, default=0), max(found, default=0)
    return f"{low} seed{'s' * (low != 1)}" if low == high else f"{low} to {high} seeds"


def _results(table: Mapping[str, Any]) -> Html:
    rows = {name: arm["values"] for name, arm in table["arms"].items()}
    return _statistics(table, rows)


def _differences(table: Mapping[str, Any]) -> Html:
    rows = {
        f"{name} − {arm['against']}": arm["differences"]
        for name, arm in table["arms"].items()
        if arm["against"] is not None
    }
    return _statistics(table, rows, sign="+")


def _statistics(table: Mapping[str, Any], rows: Mapping[str, Any], sign: str = "") -> Html:
    """Return a row per arm; many measures are divided among tables that a page has room for."""
    measures = list(table["measures"])
    size = math.ceil(len(measures) / math.ceil(len(measures) / _MOST_MEASURES))
    tables = []
    for start in range(0, len(measures), size):
        shown = {name: table["measures"][name] for name in measures[start : start + size]}
        body = []
        for row, values in rows.items():
            cells = [
                Cell(written(values[m], what["digits"], sign), _verdict(values[m], what, sign))
                for m, what in shown.items()
            ]
            body.append(TableRow(row, cells, table["arms"].get(row, {}).get("about") or ""))
        tables.append(render_table(["arm", *shown], body))
    return side_by_side(tables, "tables")


def _verdict(found: Mapping[str, Any], what: Mapping[str, Any], sign: str) -> str | None:
    """A difference is a gain or a loss where it is larger than its spread."""
    if not sign or found["spread"] is None or abs(found["mean"]) <= found["spread"]:
        return None
    good = found["mean"] * what["better"]
    return "gain" if good > 0 else "loss" if good < 0 else None


def _dots(table: Mapping[str, Any]) -> Html:
    charts = []
    for measure in table["measures"]:
        rows = {
            name: list(arm["values"][measure]["seeds"].values())
            for name, arm in table["arms"].items()
        }
        charts.append(dot_chart(Dots(measure, {n: v for n, v in rows.items() if v})))
    return side_by_side(charts, "charts")


def _chart(title: str, chart: Any, table: Mapping[str, Any]) -> Html:
    part = "differences" if chart.difference else "values"
    lines = [
        Line(name, _points(arms, table, part, chart.measure), colour)
        for colour, (name, arms) in enumerate(chart.lines.items())
    ]
    return line_chart(Chart(title, lines, x=chart.x, smooth=False))


def _points(
    arms: Mapping[str, float], table: Mapping[str, Any], part: str, measure: str
) -> Sequence[tuple[float, float]]:
    found = [
        (x, table["arms"][arm].get(part, {}).get(measure, {}).get("mean"))
        for arm, x in arms.items()
    ]
    return sorted((x, y) for x, y in found if y is not None)
