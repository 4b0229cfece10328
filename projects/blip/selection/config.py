"""Every key of a selection; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from lavis_lite.config.schema import key
from lavis_lite.registry.component import Component


@dataclass(frozen=True)
class PoolConfig:
    """The records to choose from, and what is known about their texts."""

    records: str = key("The output folder of a CapFilt run; scores added to it are read as well.")
    unfinished_ok: bool = key("Choose from the shards that are done of a run that is not.", False)
    label: str | None = key(
        "A field of the rows that says what a web text is known to be, as for CapFilt.", None
    )
    right: list[str] = key("Values of `label` that mean that a text is right.", [])
    labels: str | None = key(
        "File or folder with the labels of people; null: `labels/` of the run, where there is one.",
        None,
    )


@dataclass(frozen=True)
class SelectionRunConfig:
    """The selection's folder and the means of computing it."""

    output_dir: str = key("Folder of the selection; the same folder resumes it.")
    num_threads: int = key("Threads of each worker, of DuckDB and pyarrow.", 1, at_least=1)
    memory: str = key("Most memory that DuckDB takes for duplicates and caps.", "200MB")
    report: str | None = key(
        "File name of the HTML report; null writes none.", "selection_report.html"
    )


@dataclass(frozen=True)
class SelectionConfig:
    """Choosing texts of a CapFilt run by their scores (`runner: {name: select}`)."""

    without_effect: ClassVar = (
        "runner.executor",  # how work is spread over processes
        "runner.workers",
        "run.memory",
        "run.report",
    )

    runner: Component = key("The runner, with `executor` and `workers`.", kind="runner")
    data: PoolConfig = key("What is chosen from.")
    run: SelectionRunConfig = key("Output folder.")
    scores: dict[str, Any] = key(
        "New scores, fused from others: `NAME: {fuse: z, weights: {itm: 1, clip: 0.5}}`; `fuse` is "
        "`z` (score minus mean, over the standard deviation) or `rank` (share of the pool below).",
        {},
    )
    rules: list[dict[str, Any]] = key("Rules in order; see the page on selections.", [])
    keep: Any = key(
        "The texts that an image keeps of those that pass: `all`, `best`, `{best: N, by: SCORE}`, "
        "`synthetic_if_web_failed`, `{synthetic_if_web_failed: N, by: SCORE}`.",
        "all",
    )
    plugins: list[str] = key("Files or modules of your own to import first.", [])
