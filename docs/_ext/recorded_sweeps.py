"""The directive ``recorded-sweep``: a table of a recorded sweep.

.. recorded-sweep:: ablation_scenes.json    a file of benchmarks/, see tools.record
   :arms: none; F; C+F                      rows; all arms unless given
   :measures: zero-shot; captions           columns; all measures unless given
   :differences:                            to each arm's ``against``, instead of the values
   :seeds:                                  the values of the seeds, too
   :place:                                  under the table, the command and the machine

.. recorded-grid:: swap_scenes.json         one measure of a sweep over a grid: a table, and a chart
   :measure: R@1 by cosine
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from recorded_runs import BENCHMARKS, PLACE
from report_charts import chart_node
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

from lavis_lite.report.charts import dot_chart
from lavis_lite.runners.sweep.grid import dots, read_grid
from lavis_lite.runners.sweep.seeds import written


def names(argument: str) -> list[str]:
    """``none; C+F, beam`` as a list."""
    return [name.strip() for name in argument.split(";")]


class RecordedSweep(Directive):
    """Means and spreads over the seeds, read from the record."""

    required_arguments = 1
    option_spec = {
        "arms": names,
        "measures": names,
        "differences": directives.flag,
        "seeds": directives.flag,
        "place": directives.flag,
    }

    def lines(self, record: dict[str, Any]) -> Iterator[str]:
        measures = self.options.get("measures", list(record["measures"]))
        yield from [".. list-table::", "   :header-rows: 1", "", "   * - arm"]
        yield from (f"     - {name}" for name in measures)
        for name in self.options.get("arms", list(record["arms"])):
            arm = record["arms"][name]
            values = arm["differences" if "differences" in self.options else "values"]
            about = f" ({arm['about']})" if arm["about"] else ""
            against = f" − {arm['against']}" if "differences" in self.options else about
            yield f"   * - {name}{against}"
            yield from (f"     - {self.cell(values[m], record['measures'][m])}" for m in measures)
        if "place" in self.options:
            where = record["environment"]
            place = ", ".join(f"{key} {where[key]}" for key in PLACE if key in where)
            hours = record["seconds"] / 3600
            yield from [
                "",
                f"Command: ``{record['command']}``; {hours:.1f} hours of runs, {place}.",
            ]

    def cell(self, found: dict[str, Any], what: dict[str, Any]) -> str:
        sign = "+" if "differences" in self.options else ""
        text = written(found, what["digits"], sign)
        if "seeds" not in self.options or not found["seeds"]:
            return text
        each = " ".join(f"{value:{sign}.{what['digits']}f}" for value in found["seeds"].values())
        return f"{text} ({each.replace('-', '−')})"

    def run(self) -> list[nodes.Node]:
        file = BENCHMARKS / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(file))
        record = json.loads(file.read_text(encoding="utf-8"))
        holder = nodes.section(document=self.state.document)
        lines = StringList(list(self.lines(record)), str(file))
        nested_parse_with_titles(self.state, lines, holder)
        return holder.children


class RecordedGrid(Directive):
    """The mean over the seeds: an axis down, one across; the same as dots."""

    required_arguments = 1
    option_spec = {"measure": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        file = BENCHMARKS / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(file))
        record = json.loads(file.read_text(encoding="utf-8"))
        grid = read_grid(record, self.options["measure"])
        digits = record["measures"][grid.measure]["digits"]
        lines = [f".. list-table:: {grid.measure}", "   :header-rows: 1", "", "   * -"]
        lines += [f"     - {column}" for column in grid.measured]
        for row in grid.rows:
            lines.append(f"   * - {row}")
            lines += [f"     - {written(grid.cells[row, c], digits)}" for c in grid.measured]
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, str(file)), holder)
        return [*holder.children, chart_node(dot_chart(dots(grid)))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("recorded-sweep", RecordedSweep)
    app.add_directive("recorded-grid", RecordedGrid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
