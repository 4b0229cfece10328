"""Reports: one self-contained HTML page about a run or a pipeline.

``report_pipeline`` reads what runs left in their folders. ``write_report`` takes sections of one's
own, built from plain data by the functions named here; nothing needs a model. Their bodies are
``Html`` (``markupsafe.Markup``), which ``render`` makes from a template of jinja2, or plain text.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.report import compose, examples
from lavis_lite.report.charts import (
    Chart,
    Histogram,
    Line,
    histogram_chart,
    legend,
    line_chart,
)
from lavis_lite.report.environment import environment
from lavis_lite.report.gallery import (
    Example,
    FoundImage,
    FoundText,
    ImageQuery,
    TextQuery,
    gallery,
    image_queries,
    text_queries,
)
from lavis_lite.report.page import Headline, Section, write_report
from lavis_lite.report.render import Html, render, side_by_side
from lavis_lite.report.runs import Pictures, Run, read_run
from lavis_lite.report.tables import (
    Change,
    Column,
    before_after,
    figure_table,
    key_values,
    metric_table,
)

log = logging.getLogger(__name__)

__all__ = [
    "Change",
    "Chart",
    "Column",
    "Example",
    "FoundImage",
    "FoundText",
    "Headline",
    "Histogram",
    "Html",
    "ImageQuery",
    "Line",
    "Pictures",
    "Run",
    "Section",
    "TextQuery",
    "before_after",
    "environment",
    "figure_table",
    "gallery",
    "histogram_chart",
    "image_queries",
    "key_values",
    "legend",
    "line_chart",
    "metric_table",
    "read_run",
    "render",
    "report_pipeline",
    "report_run",
    "side_by_side",
    "text_queries",
    "write_report",
]


def report_pipeline(
    output_dir: str | os.PathLike,
    stages: Mapping[str, str | os.PathLike],
    title: str,
    *,
    name: str = "report.html",
    compare: Sequence[tuple[str, str]] = (),
    about: str = "",
    extra: list[Section] | None = None,
) -> str:
    """Write a page about runs that belong together.

    Args:
        output_dir: where the page goes.
        stages: name -> output folder of each run, in order.
        title: of the page.
        name: of the file.
        compare: pairs of stages, (before, after), whose results are put side by side.
        about: what is said below the title.
        extra: sections of one's own, after the results.

    Returns:
        The path of the page.
    """
    runs = [read_run(stage, folder) for stage, folder in stages.items()]
    pictures = Pictures()
    named = {run.name: run for run in runs}
    pairs = [(named[before], named[after]) for before, after in compare]
    sections = [
        _try("comparison", compose.comparison, pairs),
        _try("results", compose.results, runs),
        *(extra or []),
        *(section for run in runs for section in _of_runner(run)),
        _try("captions", examples.captions, runs, pictures, pairs),
        _try("retrieval", examples.retrieval, runs, pictures),
        _try("matching", examples.matching, runs),
        _try("training", compose.curves, runs),
        _try("runs", compose.stages, runs),
    ]
    start = next((run.start for run in reversed(runs) if run.start), {})
    facts = environment()
    facts |= {key: str(start[key]) for key in ("device", "processes", "started") if key in start}
    seconds = [run.summary["seconds"] for run in runs if "seconds" in run.summary]
    if seconds:
        facts["time of all runs"] = _duration(sum(seconds))
    return write_report(
        [section for section in sections if section is not None],
        Path(output_dir) / name,
        title,
        command=start.get("command", ""),
        environment=facts,
        headline=compose.headline(runs, pairs),
        summary=f"{about} {_summary(runs)}".strip(),
    )


def _of_runner(run: Run) -> list[Section]:
    """Return the sections that the runner of a finished run adds to its report."""
    if not run.summary or run.config is None:
        return []
    runner: Any = registry.entry("runner", run.config.runner.name).result
    if not hasattr(runner, "report_sections"):
        return []
    try:
        return runner.report_sections(run.folder, run.config)
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        log.warning("the report has no sections of %s: %r", run.name, error)
        return []


def _try(name: str, build: Callable[..., Section | None], *arguments: object) -> Section | None:
    """A section; None when the runs' files are not as this version writes them."""
    try:
        return build(*arguments)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        log.warning("the report has no section on %s: %r", name, error)
        return None


def report_run(output_dir: str | os.PathLike, title: str | None = None) -> str:
    """Write a page about one run into its folder; the path of the page."""
    folder = Path(output_dir)
    return report_pipeline(folder, {folder.name: folder}, title or folder.name)


def _summary(runs: list[Run]) -> str:
    names = [run.name for run in runs]
    unfinished = [run.name for run in runs if not run.summary]
    text = f"{len(names)} runs: {', '.join(names)}." if len(names) > 1 else ""
    if unfinished:
        text += f" Not finished: {', '.join(unfinished)}."
    return text.strip()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
