"""The runner `sweep`: variants of a config, each with several seeds, as one table."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.config.files import config_root
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.runners.run_folder import RunFolder, write_json
from lavis_lite.runners.signals import StopSignals
from lavis_lite.runners.sweep.config import Measure, SweepConfig
from lavis_lite.runners.sweep.page import summarise, write_csv, write_page
from lavis_lite.runners.sweep.plan import SINGLE, Job, Plan, Planner
from lavis_lite.runners.sweep.processes import run_jobs

log = logging.getLogger(__name__)


@registry.register("runner", "sweep")
class SweepRunner:
    """Runs every arm with every seed; equal stages of several arms are run once.

    A run's folder is named by a hash of its settings, so that the sweep may be stopped, continued
    and given more arms, seeds and measures at any time: what has been run is not run again.
    Written into the output folder: ``complete.json`` (and ``sweep.csv``) with a mean, a spread (the
    standard deviation of the sample) and the values of the seeds, and the report.

    Args:
        config: of the sweep.
        workers: processes side by side, of one thread each; 1 runs in this process.
    """

    def __init__(self, config: SweepConfig, workers: int = 1) -> None:
        self.config, self.workers = config, workers
        check(config, workers)
        self.folder = RunFolder(config.run.output_dir)

    def run(self) -> dict[str, Any]:
        """Run what is missing; returns the table, as ``complete.json`` has it.

        Raises:
            ConfigError: problems of all arms' configs; or, after all others, runs that failed.
        """
        plan = Planner(self.config).plan()
        self._check_stages(plan)
        todo = {k: job for k, job in plan.jobs.items() if summary_of(job) is None}
        log.info(
            "%d arms and seeds are %d runs, %d of them complete",
            len(plan.cells),
            len(plan.jobs),
            len(plan.jobs) - len(todo),
        )
        with self.folder.alone(), StopSignals() as signals:
            self.folder.claim(_portable(self.config), torch.device("cpu"))
            self.folder.reopen()
            with signals.at_once():
                failures = run_jobs(
                    todo, self.workers, self.config.plugins, lambda _: self._write(plan)
                )
            table = self._write(plan)
            self._warn_of_unknown_figures(plan)
            if failures:
                listed = "\n".join(f"  {job.folder}: {why}" for job, why in failures)
                raise ConfigError(
                    f"{len(failures)} of {len(plan.jobs)} runs did not finish; the table has "
                    f"the others:\n{listed}"
                )
            self.folder.finish(table)
        return table

    def _check_stages(self, plan: Plan) -> None:
        """Figures name stages that some arm has."""
        known = list(dict.fromkeys(stage for stages in plan.cells.values() for stage in stages))
        problems = [
            f"measures.{name}: no stage {stage!r}.{suggest(stage, known)} "
            f"Stages: {', '.join(known)}"
            for name, measure in self.config.measures.items()
            for figure in measure.figures
            if plan.is_pipeline and (stage := figure.partition("/")[0]) not in known
        ]
        if problems:
            raise ConfigError("\n".join(problems))

    def _warn_of_unknown_figures(self, plan: Plan) -> None:
        """A figure that not all arms have is a dash in the table; one that none has is a slip."""
        for name in (figure for m in self.config.measures.values() for figure in m.figures):
            stage, _, figure = name.partition("/") if plan.is_pipeline else (SINGLE, "", name)
            found = [summary_of(job) for job in plan.jobs.values() if job.stage == stage]
            known = {key for summary in found if summary for key in summary["metrics"]}
            if known and figure not in known:
                log.warning("stage %s has no figure %r.%s", stage, figure, suggest(figure, known))

    def _write(self, plan: Plan) -> dict[str, Any]:
        """The table of what is complete, in all its forms."""
        config = self.config
        summaries = {ident: summary_of(job) for ident, job in plan.jobs.items()}
        seconds = {k: s.get("seconds", 0.0) for k, s in summaries.items() if s is not None}
        cells: dict[str, dict[int, dict[str, float | None]]] = {arm: {} for arm in config.variants}
        for (arm, seed), stages in plan.cells.items():
            by_stage = {stage: summaries[ident] for stage, ident in stages.items()}
            cells[arm][seed] = {
                name: value_of(measure, by_stage, plan.is_pipeline)
                for name, measure in config.measures.items()
            }
        table = {
            "seconds": round(sum(seconds.values()), 1),
            "runs": len(plan.jobs),
            "complete": len(seconds),
            **summarise(config, cells),
            "folders": {
                f"{arm}, seed {seed}": {s: plan.jobs[i].folder.name for s, i in stages.items()}
                for (arm, seed), stages in plan.cells.items()
            },
        }
        path = self.folder.path
        write_json(path / "sweep.json", table)
        write_csv(table, path / "sweep.csv")
        if config.run.report:
            start = json.loads(self.folder.start.read_text("utf-8"))
            table["report"] = write_page(table, config, start, path / config.run.report)
        return table


def _portable(config: SweepConfig) -> SweepConfig:
    """The config with the one that is varied named as on any machine, where it ships with us."""
    path = Path(config.cfg)
    if path.is_relative_to(config_root()):
        return dataclasses.replace(config, cfg=path.relative_to(config_root()).as_posix())
    return config


def check(config: SweepConfig, workers: int) -> None:
    """Check how the values fit together; reads no other config.

    Raises:
        ConfigError: all problems in one report.
    """
    problems = [f"runner.workers: {workers}; at least 1"] if workers < 1 else []
    for name in ("seeds", "measures"):
        if not getattr(config, name):
            problems.append(f"{name}: name at least one")
    problems += _problems_of_arms(config)
    if repeated := sorted({s for s in config.seeds if config.seeds.count(s) > 1}):
        problems.append(f"seeds: {repeated} more than once")
    for name, measure in config.measures.items():
        if not measure.figures:
            problems.append(f"measures.{name}.figures: name at least one")
    for title, chart in config.charts.items():
        if chart.measure not in config.measures:
            near = suggest(chart.measure, config.measures)
            problems.append(f"charts.{title}.measure: no {chart.measure!r}.{near}")
        for arm_name in (arm for line in chart.lines.values() for arm in line):
            if arm_name not in config.variants:
                near = suggest(arm_name, config.variants)
                problems.append(f"charts.{title}.lines: no arm {arm_name!r}.{near}")
    if problems:
        raise ConfigError("\n".join(problems))


def _problems_of_arms(config: SweepConfig) -> Iterator[str]:
    """Return the problems of the arms, including those that the grid makes."""
    variants = config.variants
    if not variants:
        yield "arms: name at least one, or the axes of a `grid`"
    for axis, choices in config.grid.items():
        if not choices:
            yield f"grid.{axis}: name at least one choice"
    for name in config.combinations():
        if name in config.arms:
            yield f"arms.{name}: the grid makes an arm of this name"
    overridden: dict[str, str] = {}
    for axis, choices in config.grid.items():
        for key in {key for overrides in choices.values() for key in overrides}:
            if (other := overridden.setdefault(key, axis)) != axis:
                yield f"grid.{axis}: {key} is already varied by {other!r}"
    for name, arm in variants.items():
        if arm.against is not None and arm.against not in variants:
            near = suggest(arm.against, variants)
            yield f"arms.{name}.against: no arm {arm.against!r}.{near}"
        if config.seed_key in arm.set:
            yield f"arms.{name}.set: {config.seed_key} is already set by `seeds`"
        if unknown := [s for s in arm.seeds or [] if s not in config.seeds]:
            yield f"arms.{name}.seeds: {unknown} are none of seeds: {config.seeds}"


def summary_of(job: Job) -> dict[str, Any] | None:
    """Return the result of a finished run; None while it has not finished."""
    return RunFolder(job.folder).summary()


def value_of(
    measure: Measure, summaries: dict[str, dict[str, Any] | None], is_pipeline: bool
) -> float | None:
    """The mean of a measure's figures; None where a run is missing, or has no such figure.

    Args:
        measure: what is asked for.
        summaries: stage -> what it returned.
        is_pipeline: whether figures begin with a stage.
    """
    values = []
    for figure in measure.figures:
        stage, _, name = figure.partition("/") if is_pipeline else (SINGLE, "", figure)
        if (summary := summaries.get(stage)) is None:
            return None
        if (value := summary["metrics"].get(name)) is None:
            return None
        values.append(value)
    return measure.scale * sum(values) / len(values)
