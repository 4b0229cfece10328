"""A benchmark's results: as CSV, as plots and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite.io.files import whole_file
from lavis_lite.report.charts import Chart, Line, Ratio, line_chart, ratio_chart
from lavis_lite.report.page import Section, write_report
from lavis_lite.report.render import Html, side_by_side
from lavis_lite.report.tables import Cell, TableRow, key_values, render_table

OURS = "ours"
COLUMNS = (
    *("case", "workload", "contender", "precision", "device", "threads", "unit", "amount"),
    *("seconds", "spread", "cpu_seconds", "per_second", "gflop", "share_of_rate"),
    *("peak_mib", "total_mib", "time_ratio", "cpu_ratio", "time_at_most"),
    *("time_reached", "load"),
    *("memory_ratio", "memory_at_most", "memory_reached"),
    *("total_memory_ratio", "total_memory_at_most", "total_memory_reached"),
    *("seconds_at_most", "seconds_reached", "share_of_rate_at_least", "share_of_rate_reached"),
    *("same_results", "matmul_gflop_per_second", "processor", "cores", "GPU", "torch"),
    *("transformers", "Python", "commit", "started", "command"),
)
LABELS = (
    *("seconds", "per second", "GFLOP", "share of the rate", "memory added, MiB"),
    *("memory in all, MiB", "time ratio", "added ratio", "in all ratio", "wanted"),
)
_MEMORY = ("memory", "total_memory")  # ratios
BOUNDS = ("at_most", "at_least")

Case = Mapping[str, Any]


def contenders(case: Case) -> dict[str, Mapping[str, Any]]:
    """Return the contenders by name: ours first, then the baselines."""
    return {OURS: case[OURS], **case["baselines"]}


def not_timed(found: Mapping[str, Any]) -> str:
    """Say why a baseline has no figures: its error, or a different result."""
    return found.get("error", "other results")


def bound(target: Mapping[str, Any]) -> str:
    """Return the bound of a target as text: `at most 0.5`."""
    return next(
        f"{words.replace('_', ' ')} {target[words]:.3g}" for words in BOUNDS if words in target
    )


def rate(case: Case, found: Mapping[str, Any]) -> str:
    """Units per second."""
    value = found["per_second"]
    return f"{value:{',.0f' if value >= 1000 else '.3g'}} {case['unit']}"


def rows(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row per case and contender, under the names of ``COLUMNS``; what is unknown is absent."""
    where = table["environment"]
    place = {k: where[k] for k in COLUMNS if k in where}
    place |= {"started": table["started"], "command": table["command"]}
    for case in table["cases"]:
        same = {name: case[name] for name in COLUMNS if name in case}
        for name, found in contenders(case).items():
            row = {"case": case["title"], "contender": name, **same, **place}
            row |= {key: found[key] for key in COLUMNS if key in found and key != OURS}
            row |= {f"{what}_ratio": ratio for what, ratio in found.get("ratio", {}).items()}
            for one in case["reach"]:
                if one["against"] == name:
                    row |= {f"{one['measure']}_{k}": one[k] for k in BOUNDS if k in one}
                    row[f"{one['measure']}_reached"] = one["reached"]
            if found.get("differences"):
                row["same_results"] = all(d["agrees"] for d in found["differences"])
            yield row


def write_csv(table: Mapping[str, Any], path: Path) -> None:
    """A line per case and contender."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    for row in rows(table):
        numbers = {k: f"{v:.6g}" for k, v in row.items() if isinstance(v, float)}
        writer.writerow({**row, **numbers})
    with whole_file(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8")


def write_page(table: Mapping[str, Any], title: str, path: Path) -> str:
    """The page of a benchmark; its path."""
    sections = [
        Section(
            "Side by side",
            _table(table),
            f"Median ± standard deviation of {_num_runs(table)}, taken in turns; a ratio is ours "
            "divided by the baseline's. The share is of the machine's own rate at matrix products. "
            "Memory in MiB: what a run adds at its highest, and all that its process, which does "
            "nothing else, holds then, weights and libraries included (and our model, where that "
            "of a baseline is a copy of it).",
        )
    ]
    if failed := table.get("failed"):
        sections.append(Section("Not measured", key_values(failed)))
    if drawn := plots(table):
        sections.append(Section("Plots", side_by_side(drawn, "charts")))
    sections.append(Section("Same results?", _differences(table), "Looked at before any timing."))
    all_targets = [one for case in table["cases"] for one in case["reach"]]
    reached = sum(one["reached"] for one in all_targets)
    said = f"{reached} of {len(all_targets)} targets are reached. " if all_targets else ""
    return write_report(
        sections,
        path,
        title,
        command=table["command"],
        environment={**table["environment"], "device": table["device"]},
        summary=f"{len(table['cases'])} cases. {said}{table['seconds'] / 60:.1f} minutes in all.",
    )


def _num_runs(table: Mapping[str, Any]) -> str:
    """Return how many runs a figure is the median of: ``5 runs``, ``3 to 5 runs``."""
    found = [len(case[OURS]["runs"]) for case in table["cases"]] or [0]
    low, high = min(found), max(found)
    return f"{low} runs" if low == high else f"{low} to {high} runs"


def plots(table: Mapping[str, Any]) -> list[Html]:
    """The ratios with their targets; of a case that varies an argument, its figures over it."""
    bars = [
        Ratio(f"{case['title']}: {name}", found["ratio"][what], at_most)
        for case in table["cases"]
        for name, found in case["baselines"].items()
        for what, at_most in [("time", _target(case, name, "time"))]
        if what in found.get("ratio", {}) and not _varied(table, case)
    ]
    drawn = [ratio_chart("time of ours, divided by the baseline's", bars)] if bars else []
    for plot in table["plots"]:
        cases = [case for case in table["cases"] if case["title"] in plot["cases"]]
        if len(cases) > 1:
            drawn += growth(plot, cases)
    return drawn


def growth(plot: Mapping[str, Any], cases: Sequence[Case]) -> Iterator[Html]:
    """Units per second, and peak memory where it was measured, over the varied argument."""
    argument, unit = plot["argument"], cases[0]["unit"]
    names = list(contenders(cases[0]))
    measures = (
        ("per_second", f"{unit} per second"),
        ("peak_mib", "memory that a run adds, MiB"),
        ("total_mib", "all memory of its process, MiB"),
    )
    for key, label in measures:
        lines = [
            Line(name, points, colour)
            for colour, name in enumerate(names)
            if (points := list(_points(cases, name, argument, key)))
        ]
        if lines:
            title = f"{plot['title']}: {label}"
            measured = sorted({x for line in lines for x, _ in line.points})
            yield line_chart(Chart(title, lines, x=argument, smooth=False, measured=measured))


def _points(
    cases: Sequence[Case], name: str, argument: str, key: str
) -> Iterator[tuple[float, float]]:
    for case in cases:
        value = contenders(case)[name].get(key)
        if value is not None:
            yield float(case["settings"][argument]), value


def _varied(table: Mapping[str, Any], case: Case) -> bool:
    return any(case["title"] in plot["cases"] for plot in table["plots"])


def _target(case: Case, against: str, measure: str) -> float | None:
    for one in case["reach"]:
        if (one["against"], one["measure"]) == (against, measure):
            return one["at_most"]
    return None


def _table(table: Mapping[str, Any]) -> Html:
    """Return a row for each contender; a column that none has a figure for is left out."""
    every = [(case, *one) for case in table["cases"] for one in contenders(case).items()]
    cells = [_cells(*one) for one in every if "seconds" in one[2]]
    shown = [n for n in range(len(LABELS)) if any(row[n].text not in ("", "–") for row in cells)]
    rows = []
    for case, name, found in every:
        title = f"{case['title']}, {case['precision']}" if name == OURS else ""
        if "seconds" in found:
            row = [cell for n, cell in enumerate(_cells(case, name, found)) if n in shown]
        else:
            row = [Cell(not_timed(found), span=len(shown))]
        rows.append(TableRow(title, row, name))
    return render_table(["case", *(LABELS[n] for n in shown)], rows)


def _cells(case: Case, name: str, found: Mapping[str, Any]) -> list[Cell]:
    """Return the cells of a contender that was timed, one for each of ``LABELS``."""
    reach = [one for one in case["reach"] if one["against"] == name]
    share = found.get("share_of_rate")
    ratio = found.get("ratio", {})
    cells = [
        f"{found['seconds']:.3g} ± {found['spread']:.2g}",
        rate(case, found),
        _number(found.get("gflop"), ".4g"),
        "–" if share is None else f"{100 * share:.0f} %",
        _number(found.get("peak_mib"), ",.0f"),
        _number(found.get("total_mib"), ",.0f"),
        _number(ratio.get("time"), ".2f"),
        *(_number(ratio[what], ".2f") if what in ratio else "" for what in _MEMORY),
        ", ".join(f"{one['measure'].replace('_', ' ')} {bound(one)}" for one in reach),
    ]
    verdict = ("gain" if all(one["reached"] for one in reach) else "loss") if reach else None
    return [*map(Cell, cells[:-1]), Cell(cells[-1], verdict)]


def _number(value: float | None, format: str) -> str:
    return "–" if value is None else f"{value:{format}}"


def _differences(table: Mapping[str, Any]) -> Html:
    rows = [
        TableRow(
            f"{case['title']}: {name}",
            [
                Cell(one["what"]),
                Cell(f"{one['value']:.3g}", None if one["agrees"] else "loss"),
                Cell(f"{one['tolerance']:g}"),
            ],
        )
        for case in table["cases"]
        for name, found in case["baselines"].items()
        for one in found["differences"]
    ]
    return render_table(["case", "compared", "difference", "at most"], rows, kind="differences")
