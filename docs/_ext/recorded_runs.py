"""The directive ``recorded``: figures of a recorded run, with the command and the machine.

.. recorded:: quickstart.json         a file of benchmarks/, written by lavis_lite.report.record
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PLACE = ("processor", "cores", "GPU", "Python", "torch", "timm", "transformers", "commit")


class RecordedRun(Directive):
    """A table of stages and figures, under it the command, the time and the machine."""

    required_arguments = 1

    def lines(self, stages: dict[str, Any]) -> Iterator[str]:
        yield from [".. list-table::", "   :header-rows: 1", ""]
        yield "   * - stage\n     - steps\n     - seconds\n     - figures"
        for name, run in stages.items():
            figures = ", ".join(f"{key} {value:.4g}" for key, value in run["metrics"].items())
            yield f"   * - {name}\n     - {run['step']}\n     - {run['seconds']:.0f}"
            yield f"     - {figures}"
        first = next(iter(stages.values()))
        place = ", ".join(
            f"{k} {first['environment'][k]}" for k in PLACE if k in first["environment"]
        )
        yield from ["", f"Command: ``{first['command']}``. Where: {place}."]

    def run(self) -> list[nodes.Node]:
        file = BENCHMARKS / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(file))
        record = json.loads(file.read_text(encoding="utf-8"))
        stages = {"": record} if "metrics" in record else record
        lines = "\n".join(self.lines(stages)).splitlines()
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, str(file)), holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("recorded", RecordedRun)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
