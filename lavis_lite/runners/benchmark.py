"""The runner `benchmark`: work measured beside other ways of doing the same, in one process."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.device import choose
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.report.benchmark import write_csv, write_page
from lavis_lite.runners.benchmark_case import Setting, expand, measure
from lavis_lite.runners.benchmark_config import ABSOLUTE, OURS, RATIOS, BenchmarkConfig, Case
from lavis_lite.runners.folder import RunFolder, write_json
from lavis_lite.runners.signals import StopSignals

log = logging.getLogger(__name__)


@registry.register("runner", "benchmark")
class BenchmarkRunner:
    """Runs each case: ours and its baselines, on equal weights and inputs, one after the other.

    Written into the output folder after every case: ``benchmark.json``, ``benchmark.csv`` and the
    report; the machine, the versions and the command stand in each.

    Args:
        config: the run.
    """

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        check(config)
        every = list(expand(config.cases))
        self.cases = [case for case in every if config.run.only in case.title]
        if not self.cases:
            titles = "; ".join(case.title for case in every)
            raise ConfigError(f"run.only: {config.run.only!r} is in no title. Titles: {titles}")

    def run(self) -> dict[str, Any]:
        """Measure all cases; returns the table, as ``benchmark.json`` has it.

        ``metrics`` has the medians, as ``case/contender/seconds``, and the ratios, as
        ``case/baseline/time``.
        """
        run = self.config.run
        if run.num_threads:
            torch.set_num_threads(run.num_threads)
        device = choose(run.device)
        folder = RunFolder(run.output_dir)
        begin = time.perf_counter()
        with folder.alone(), StopSignals() as signals:
            folder.refuse_other_kind(self.config.runner.name)
            folder.claim(self.config, device)
            folder.reopen()
            setting = Setting(run, device, self.config.plugins)
            cases: list[dict[str, Any]] = []
            table: dict[str, Any] = {}
            for case in self.cases:
                with signals.at_once():
                    cases.append(measure(case, setting))
                log.info("%s", line(cases[-1]))
                table = self._write(folder, cases, time.perf_counter() - begin)
            folder.finish(table)
        return table

    def _write(
        self, folder: RunFolder, cases: list[dict[str, Any]], seconds: float
    ) -> dict[str, Any]:
        """The table of what has been measured, in all its forms."""
        run = self.config.run
        start = json.loads(folder.start.read_text("utf-8"))
        table = {
            **{name: start[name] for name in ("command", "started", "environment", "device")},
            "seconds": round(seconds, 1),
            "metrics": metrics(cases),
            "plots": [
                {"title": c.title, "argument": name, "cases": [x.title for x in expand([c])]}
                for c in self.config.cases
                for name in c.vary
            ],
            "cases": cases,
        }
        places = [folder.path / "benchmark", *([Path(run.record)] if run.record else [])]
        for place in places:
            write_json(place.with_name(f"{place.name}.json"), table)
            write_csv(table, place.with_name(f"{place.name}.csv"))
        if run.report:
            write_page(table, run.title, folder.path / run.report)
        return table


def check(config: BenchmarkConfig) -> None:
    """Check how the values fit together; builds nothing.

    Raises:
        ConfigError: all problems in one report.
    """
    problems = [] if config.cases else ["cases: name at least one"]
    titles = [case.title for case in expand(config.cases)]
    if repeated := sorted({title for title in titles if titles.count(title) > 1}):
        problems.append(f"cases: {repeated} more than once")
    if not config.run.warmup and any(case.args.get("compile") for case in expand(config.cases)):
        # torch.compile does nothing while operations are counted.
        problems.append("run.warmup: at least 1 where a case compiles, or that is timed too")
    for number, case in enumerate(config.cases):
        problems += [f"cases[{number}].{problem}" for problem in case_problems(case)]
    if problems:
        raise ConfigError("\n".join(problems))


def case_problems(case: Case) -> list[str]:
    """What is wrong with one case."""
    problems = []
    known = list(getattr(registry.result("workload", case.name), "baselines", ()))
    for name in case.baselines or ():
        if name not in known:
            problems.append(
                f"baselines: {case.name} has no {name!r}.{suggest(name, known)} "
                f"It has: {', '.join(known) or 'none'}"
            )
    measured = known if case.baselines is None else case.baselines
    for against, wanted in case.reach.items():
        if against not in (OURS, *measured):
            near = suggest(against, [OURS, *measured])
            problems.append(f"reach.{against}: not measured here.{near}")
            continue
        allowed = ABSOLUTE if against == OURS else RATIOS
        problems += [
            f"reach.{against}.{what}: one of {', '.join(allowed)}"
            for what in wanted
            if what not in allowed
        ]
        if "memory" in wanted and not case.memory:
            problems.append(f"reach.{against}.memory: needs `memory: true`")
    arguments = list(registry.arguments("workload", case.name))
    if len(case.vary) > 1:
        problems.append(f"vary: one argument, not {', '.join(case.vary)}")
    for name, values in case.vary.items():
        if name not in arguments:
            near = suggest(name, arguments)
            problems.append(f"vary: {case.name} takes no {name!r}.{near}")
        if not values:
            problems.append(f"vary.{name}: name at least one value")
    if case.repeats is not None and case.repeats < 1:
        problems.append(f"repeats: {case.repeats}; at least 1")
    return problems


def metrics(cases: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that a summary holds."""
    found = {}
    for case in cases:
        for name, contender in {OURS: case[OURS], **case["baselines"]}.items():
            if "seconds" in contender:
                found[f"{case['title']}/{name}/seconds"] = contender["seconds"]
            for what, ratio in contender.get("ratio", {}).items():
                found[f"{case['title']}/{name}/{what}"] = ratio
    return found


def line(case: dict[str, Any]) -> str:
    """A case in one line, for the log."""
    parts = [f"{case['title']}: {case[OURS]['seconds']:.3g} s"]
    for name, baseline in case["baselines"].items():
        if "seconds" in baseline:
            ratio = ", ".join(f"{what} {x:.2f}" for what, x in baseline["ratio"].items())
            parts.append(f"{name} {baseline['seconds']:.3g} s ({ratio})")
        else:
            parts.append(f"{name}: other results, not timed")
    parts += [
        f"{one['measure']} at most {one['at_most']:g}: {'yes' if one['reached'] else 'NO'}"
        for one in case["reach"]
    ]
    return "; ".join(parts)
