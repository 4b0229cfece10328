"""The directive ``recorded``: figures of a recorded run, with the command and the machine.

.. recorded:: quickstart.json         a file of benchmarks/, written by tools.record
   :figures: cases; outcomes          of a record that is no run's: which of its numbers to show
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PLACE = ("processor", "cores", "GPU", "Python", "torch", "timm", "transformers", "commit")


class RecordedRun(Directive):
    """A table of stages and figures, under it the command, the time and the machine."""

    required_arguments = 1
    option_spec = {"figures": directives.unchanged_required}

    def lines(self, stages: dict[str, Any]) -> Iterator[str]:
        yield from [".. list-table::", "   :header-rows: 1", ""]
        yield "   * - stage\n     - steps\n     - seconds\n     - figures"
        for name, run in stages.items():
            figures = ", ".join(f"{key} {value:.4g}" for key, value in run["metrics"].items())
            yield f"   * - {name}\n     - {run['step']}\n     - {run['seconds']:.0f}"
            yield f"     - {figures}"
        yield from self.source(next(iter(stages.values())))

    def counts(self, record: dict[str, Any], names: list[str]) -> Iterator[str]:
        """A table of some numbers of a record; of a mapping each of its entries."""
        yield from [".. list-table::", ""]
        for name in names:
            value = record[name]
            for key, number in (value if isinstance(value, dict) else {name: value}).items():
                yield f"   * - {key.replace('_', ' ')}\n     - {number:,}"
        yield from self.source(record)

    def source(self, first: dict[str, Any]) -> Iterator[str]:
        """The command and the machine."""
        place = ", ".join(
            f"{k} {first['environment'][k]}" for k in PLACE if k in first["environment"]
        )
        yield from ["", f"Command: ``{first['command']}``. Where: {place}."]

    def run(self) -> list[nodes.Node]:
        file = BENCHMARKS / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(file))
        record = json.loads(file.read_text(encoding="utf-8"))
        if names := self.options.get("figures"):
            shown = self.counts(record, [name.strip() for name in names.split(";")])
        else:
            shown = self.lines({"": record} if "metrics" in record else record)
        lines = "\n".join(shown).splitlines()
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, str(file)), holder)
        return holder.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("recorded", RecordedRun)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
