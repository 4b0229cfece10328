"""Every key of a benchmark; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lavis_lite.config.schema import key
from lavis_lite.registry.component import Component

OURS = "ours"  # what is measured against the baselines
MEMORY = ("memory", "total_memory")  # what a run adds; all that its process holds
RATIOS = ("time", *MEMORY)  # of ours to a baseline
AT_LEAST = ("share_of_rate",)  # all others are wanted small
ABSOLUTE = ("seconds", *AT_LEAST)  # of ours alone


@dataclass(frozen=True, kw_only=True)
class Case(Component):
    """A workload with its arguments, and how it is measured."""

    title: str = key("What it is called in tables; each its own.")
    precision: Literal["fp32", "bf16"] = key("Number format that the work is done in.", "fp32")
    baselines: list[str] | None = key("Which of the workload's baselines; null: all.", None)
    reach: dict[str, dict[str, float]] = key(
        "Targets: baseline -> `time`, `memory` (that a run adds) or `total_memory` (that its "
        "process holds at its peak), ours divided by its, at most; `ours` -> `seconds`, at most, "
        "or `share_of_rate` (that of the device's rate at products, from 0 to 1), at least.",
        {},
    )
    memory: bool = key("Measure peak memory too, each contender in a process of its own.", False)
    repeats: int | None = key("Timed runs of each contender; null: those of `run`.", None)
    vary: dict[str, list[Any]] = key(
        "One argument of the workload with several values: a case of each, and a plot over them.",
        {},
    )


@dataclass(frozen=True)
class BenchmarkRunConfig:
    """The output folder of a benchmark and its way of measuring."""

    output_dir: str = key("Folder of the tables and the report.")
    record: str | None = key(
        "Path without suffix of a second copy of the tables, to be kept: `benchmarks/caption` "
        "writes `benchmarks/caption.json` and `.csv`. Written when every case is measured; a run "
        "of some cases (`only`) does not replace a record of more.",
        None,
    )
    repeats: int = key("Timed runs of each contender, in turns; the median counts.", 5, at_least=1)
    warmup: int = key(
        "Runs that do not count, after the first one, in which operations are counted and "
        "results compared.",
        1,
        at_least=0,
    )
    only: str = key("Run only cases with this in their title.", "")
    device: str = key("auto, cpu, cuda, cuda:N or mps.", "auto")
    num_threads: int = key("Threads; 0 leaves torch's choice.", 0, at_least=0)
    keep_memory: bool = key(
        "Keep freed memory for the next tensors, where glibc would hand it back to the system: "
        "faster, and the process holds the most that it ever needed until it ends. "
        "`LAVIS_LITE_KEEP_MEMORY=0` switches it off everywhere.",
        True,
    )
    report: str | None = key("File name of the HTML report; null writes none.", "report.html")
    title: str = key("Title of the report.", "lavis_lite benchmark")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Work measured beside other ways of doing it (`runner: {name: benchmark}`)."""

    runner: Component = key("The runner.", kind="runner")
    cases: list[Case] = key("What is measured.", kind="workload")
    run: BenchmarkRunConfig = key("Output folder and repetitions.")
    plugins: list[str] = key("Files or modules of your own to import first.", [])
