"""Every key of a sweep; imports no torch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

from lavis_lite.config.schema import key
from lavis_lite.registry.component import Component


@dataclass(frozen=True)
class Arm:
    """One variant."""

    set: dict[str, Any] = key("Overrides of `cfg` by dotted key; none: as it is.", {})
    about: str | None = key("What it is, for the table.", None)
    against: str | None = key(
        "Another arm; the difference to it is taken seed by seed, before any mean.", None
    )
    seeds: list[int] | None = key("Only these of the sweep's seeds; null: all.", None)


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    figures: list[str] = key(
        "`evaluator/figure` of a run, `stage/evaluator/figure` of a pipeline; several: their mean."
    )
    scale: float = key("A factor, such as 100 for a share in %.", 1.0)
    digits: int = key("Decimals in the table.", 1, at_least=0)
    better: int = key("1: high is good; -1: low is good; 0: neither.", 1, at_least=-1)


@dataclass(frozen=True)
class SweepChart:
    """A measure over a number that arms differ in."""

    measure: str = key("One of `measures`.")
    x: str = key("What the number is.")
    lines: dict[str, dict[str, float]] = key("Line -> arm -> the number.")
    difference: bool = key("The difference to the arm's `against`, not the measure.", False)


@dataclass(frozen=True)
class SweepRunConfig:
    """The output folder and title of a sweep."""

    output_dir: str = key("Folder of the tables, with the runs below it.")
    report: str | None = key("File name of the HTML report; null writes none.", "report.html")
    title: str = key("Title of the report.", "lavis_lite sweep")


@dataclass(frozen=True)
class SweepConfig:
    """Variants of a config, each with several seeds (`runner: {name: sweep}`)."""

    without_effect: ClassVar = ("runner.workers",)

    runner: Component = key("The runner, with `workers`.", kind="runner")
    cfg: str = key("The config that is varied: a pipeline, or one run.")
    seeds: list[int] = key("Each arm runs once with each.")
    measures: dict[str, Measure] = key("Column -> the figures behind it.")
    run: SweepRunConfig = key("Output folder and report.")
    arms: dict[str, Arm] = key("Arm -> how it differs.", {})
    grid: dict[str, dict[str, dict[str, Any]]] = key(
        "Axis -> choice -> overrides of `cfg`: every combination of choices is an arm, named "
        "`choice, choice`.",
        {},
    )
    seed_key: str = key("The key of `cfg` that takes the seed.", "run.seed")
    results: list[str] = key(
        "Stages of the pipeline that every arm needs; others run where these build on them. "
        "Empty: all.",
        [],
    )
    also: list[str] = key("Stages that run where what they build on runs.", [])
    charts: dict[str, SweepChart] = key("Title -> a measure over a number.", {})
    plugins: list[str] = key("Files or modules of your own to import first.", [])

    @property
    def variants(self) -> dict[str, Arm]:
        """``arms``, then those of the grid, the last axis fastest."""
        return {**self.arms, **self.combinations()}

    def combinations(self) -> dict[str, Arm]:
        """The arms of the grid."""
        chosen = itertools.product(*(axis.items() for axis in self.grid.values()))
        return {
            ", ".join(choice for choice, _ in row): Arm(
                {k: v for _, o in row for k, v in o.items()}
            )
            for row in (chosen if self.grid else ())
        }
