"""Directives that show recorded benchmarks, files of benchmarks/ that the runner wrote.

.. recorded-targets:: caption.json rerank.json     every target with what was measured
.. recorded-benchmark:: caption.json               every contender: seconds, operations, memory
.. recorded-plots:: growth.json                    the plots of a benchmark
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from recorded_runs import BENCHMARKS, PLACE
from report_charts import chart_node
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite.runners.benchmark.page import OURS, bound, contenders, not_timed, plots, rate

Record = dict[str, Any]
MEMORY = {"memory": " of its memory", "total_memory": " of all its process's memory"}
RATE = " of the device's rate"
UNITS = {"time": " of its time", "seconds": " s", "share_of_rate": RATE, **MEMORY}
TABLE = [".. list-table::", "   :header-rows: 1", ""]


def row(*cells: str) -> list[str]:
    """One row of a list-table."""
    return [f"   {'* -' if not number else '  -'} {cell}" for number, cell in enumerate(cells)]


def title(case: Record) -> str:
    """A case's, whose options stay options: Sphinx makes a dash of two hyphens."""
    return case["title"].replace("--", r"\-\-")


def seconds(found: Record) -> str:
    """The median with its spread."""
    if "seconds" not in found:
        return "not timed" if found else "–"
    return f"{found['seconds']:.3g} ± {found['spread']:.2g} s"


def memory(found: Record) -> str:
    """Peak memory: what a run adds, and all that its process holds."""
    if "peak_mib" not in found:
        return "not timed" if found else "–"
    total = f" of {found['total_mib']:,.0f}" if "total_mib" in found else ""
    return f"{found['peak_mib']:,.0f}{total} MiB"


def ratios(found: Record) -> str:
    """Ours divided by a baseline's, by name."""
    known = found.get("ratio", {}).items()
    return ", ".join(f"{what.replace('_', ' ')} {value:.2f}" for what, value in known) or "–"


class Recorded(Directive):
    """A directive whose arguments are files of benchmarks/ and whose content is made from them."""

    required_arguments = 1
    optional_arguments = 20

    def lines(self, records: Sequence[Record]) -> Iterator[str]:
        raise NotImplementedError

    def records(self) -> list[Record]:
        """What the files hold that are there; the page is made anew when one of them changes."""
        files = [BENCHMARKS / Path(name) for name in self.arguments]
        for file in files:
            self.state.document.settings.record_dependencies.add(str(file))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]

    def run(self) -> list[nodes.Node]:
        holder = nodes.section(document=self.state.document)
        lines = list(self.lines(self.records()))
        for name in self.arguments:
            if not (BENCHMARKS / name).is_file():
                lines += ["", f"*{name} is not recorded yet.*", ""]
        content = StringList(lines, " ".join(self.arguments))
        nested_parse_with_titles(self.state, content, holder)
        return holder.children


class Targets(Recorded):
    """A row per target."""

    def lines(self, records: Sequence[Record]) -> Iterator[str]:
        yield from TABLE
        yield from row(
            "config", "work", "against", "wanted", "measured", "reached", "ours", "the other"
        )
        for config, case in ((config_of(r), case) for r in records for case in r["cases"]):
            for one in case["reach"]:
                yield from row(config, title(case), *target_cells(case, one))
        yield ""


def target_cells(case: Record, one: Record) -> list[str]:
    """A target and what was found: against, wanted, measured, reached, ours, the other."""
    other = case["baselines"].get(one["against"], {})
    measured = not_timed(other) if one["value"] is None else figure(one["value"])
    shown = memory if one["measure"] in MEMORY else seconds
    ours, theirs = shown(case[OURS]), shown(other)
    against = "–" if one["against"] == OURS else one["against"]
    wanted = bound(one) + UNITS[one["measure"]]
    return [against, wanted, measured, "yes" if one["reached"] else "**no**", ours, theirs]


def figure(value: float) -> str:
    """Two decimals, three where those would show a bound of 1 that is not kept."""
    return f"{value:.3f}" if 0.995 <= value < 1.005 else f"{value:.2f}"


class Benchmark(Recorded):
    """A row per case and contender, and under them the command, the time and the machine."""

    def lines(self, records: Sequence[Record]) -> Iterator[str]:
        for record in records:
            yield from TABLE
            yield from row(
                *("work", "by", "seconds", "per second", "GFLOP", "share of the machine's rate"),
                *("peak memory", "ratio"),
            )
            for case in record["cases"]:
                for name, found in contenders(case).items():
                    yield from row(title(case) if name == OURS else "", name, *cells(case, found))
            yield from ["", *place(record), ""]


def cells(case: Record, found: Record) -> list[str]:
    """The figures of one contender."""
    if "seconds" not in found:
        return [not_timed(found), *[""] * 5]
    share = f"{100 * found['share_of_rate']:.0f} %" if "share_of_rate" in found else "–"
    return [
        f"{found['seconds']:.3g} ± {found['spread']:.2g}",
        rate(case, found),
        f"{found['gflop']:,.4g}" if "gflop" in found else "–",
        share,
        memory(found) if "peak_mib" in found else "–",
        ratios(found),
    ]


def config_of(record: Record) -> str:
    """The name of the config that makes a record."""
    found = re.search(r"configs/benchmark/(\w+)\.yaml", record["command"])
    return f"``{found[1]}``" if found else ""


def place(record: Record) -> Iterator[str]:
    """The command and the machine."""
    where = record["environment"]
    facts = ", ".join(f"{key} {where[key]}" for key in PLACE if key in where)
    rates = {
        case["precision"]: case["matmul_gflop_per_second"]
        for case in sorted(record["cases"], key=lambda c: c["matmul_gflop_per_second"])
    }
    matmul = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    runs = " or ".join(map(str, sorted({len(case[OURS]["runs"]) for case in record["cases"]})))
    loads = [case["load"] for case in record["cases"] if case["load"] is not None]
    yield (
        f"Command: ``{record['command']}``, {record['seconds'] / 60:.0f} minutes; "
        f"medians of {runs} runs. Where: {facts}; "
        f"device {record['device']}, threads {record['cases'][0]['threads']}, matrix products at "
        f"{matmul} GFLOP/s, load average before a case up to {max(loads, default=0):.1f} (the case "
        "before it counts)."
    )


class Plots(Recorded):
    """The plots of each file."""

    def run(self) -> list[nodes.Node]:
        return [chart_node(chart) for record in self.records() for chart in plots(record)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("recorded-targets", Targets)
    app.add_directive("recorded-benchmark", Benchmark)
    app.add_directive("recorded-plots", Plots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
