"""Charts of the reports on pages of the documentation, with the style that they need."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from lavis_lite import report
from lavis_lite.report.render import TEMPLATES

FILE = "charts.css"


def chart_node(chart: report.Html) -> nodes.Node:
    """A chart of ``lavis_lite.report`` as a node of a page."""
    return nodes.raw("", str(report.side_by_side([chart], "drawn")), format="html")


def write_style(app: Sphinx, error: Exception | None) -> None:
    """Put the reports' style of charts beside the pages."""
    if error is None and app.builder.format == "html":
        shutil.copy(TEMPLATES / FILE, Path(app.outdir, "_static"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("build-finished", write_style)
    app.add_css_file(FILE)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
