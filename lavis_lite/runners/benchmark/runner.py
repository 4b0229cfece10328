"""The runner `benchmark`: work measured beside other ways of doing the same, in one process."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from lavis_lite import registry
from lavis_lite.distributed import choose
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.runners.benchmark.case import Setting, expand, in_a_line, measure
from lavis_lite.runners.benchmark.config import (
    ABSOLUTE,
    AT_LEAST,
    MEMORY,
    OURS,
    RATIOS,
    BenchmarkConfig,
    Case,
)
from lavis_lite.runners.benchmark.page import bound, not_timed, write_csv, write_page
from lavis_lite.runners.heap import keep_freed_memory
from lavis_lite.runners.run_folder import RunFolder, read_json, write_json
from lavis_lite.runners.signals import StopSignals

log = logging.getLogger(__name__)


@registry.register("runner", "benchmark")
class BenchmarkRunner:
    """Runs each case: ours and its baselines, on equal weights and inputs, one after the other.

    Written into the output folder after every case: ``benchmark.json``, ``benchmark.csv`` and the
    report; the machine, the versions and the command stand in each. A case that raises costs only
    itself, a baseline that does only its row.

    Args:
        config: the run.
    """

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        check(config)
        self.cases = chosen(config)
        check_record(config, self.cases)

    def run(self) -> dict[str, Any]:
        """Measure all cases; returns the table, as ``benchmark.json`` has it.

        ``metrics`` has the medians, as ``case/contender/seconds``, and the ratios, as
        ``case/baseline/time``.

        Raises:
            ConfigError: after all others, cases and baselines that could not run.
        """
        run = self.config.run
        keep_freed_memory(run.keep_memory)
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
            failed: dict[str, str] = {}
            table: dict[str, Any] = {}
            for case in self.cases:
                try:
                    with signals.at_once():
                        cases.append(measure(case, setting))
                except Exception as error:
                    failed[case.title] = in_a_line(error)
                    log.exception("%s: cannot be measured", case.title)
                else:
                    log.info("%s", line(cases[-1]))
                table = self._write(folder, cases, failed, time.perf_counter() - begin)
            self._check_complete(table)
            if run.record:
                write(table, Path(run.record))
            folder.finish(table)
        return table

    def _check_complete(self, table: dict[str, Any]) -> None:
        """Raises ConfigError where something could not run; then nothing is recorded."""
        problems = [f"{title}: {why}" for title, why in table["failed"].items()] + [
            f"{case['title']}, {name}: {found['error']}"
            for case in table["cases"]
            for name, found in case["baselines"].items()
            if "error" in found
        ]
        if problems:
            run, listed = self.config.run, "\n".join(f"  {problem}" for problem in problems)
            kept = f"; {run.record} is not written" if run.record else ""
            raise ConfigError(
                f"{len(problems)} of the runs in `cases` failed; {run.output_dir} has the "
                f"others{kept}:\n{listed}"
            )

    def _write(
        self,
        folder: RunFolder,
        cases: list[dict[str, Any]],
        failed: dict[str, str],
        seconds: float,
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
            "failed": failed,
        }
        write(table, folder.path / "benchmark")
        if run.report:
            write_page(table, run.title, folder.path / run.report)
        return table


def write(table: dict[str, Any], place: Path) -> None:
    """A table as JSON and as CSV; ``place`` is without suffix."""
    write_json(place.with_name(f"{place.name}.json"), table)
    write_csv(table, place.with_name(f"{place.name}.csv"))


def chosen(config: BenchmarkConfig) -> list[Case]:
    """The cases that ``run.only`` leaves.

    Raises:
        ConfigError: none.
    """
    only, every = config.run.only, list(expand(config.cases))
    if cases := [case for case in every if only in case.title]:
        return cases
    titles = [case.title for case in every]
    words = [word.strip(",") for title in titles for word in title.split()]
    near = suggest(only, [*titles, *words])
    raise ConfigError(f"run.only: {only!r} is in no title.{near} Titles: {'; '.join(titles)}")


def check_record(config: BenchmarkConfig, cases: list[Case]) -> None:
    """Raises ConfigError where the run of some cases would replace the record of more."""
    run = config.run
    if not run.record:
        return
    file = Path(f"{run.record}.json")
    held = {case["title"] for case in read_json(file).get("cases", [])}
    left_out = {case.title for case in expand(config.cases)} - {case.title for case in cases}
    if lost := sorted(held & left_out):
        raise ConfigError(
            f"run.record: {file} holds cases that run.only: {run.only!r} leaves out "
            f"({'; '.join(lost)}); measure all of them, or name another file"
        )


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
    """Return the problems of one case."""
    problems = []
    workload = registry.entry("workload", case.name).result
    known = list(getattr(workload, "baselines", ()))
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
        problems += [
            f"reach.{against}.{what}: {case.name} has no counted operations"
            for what in AT_LEAST
            if what in wanted and not getattr(workload, "arithmetic", True)
        ]
        problems += [
            f"reach.{against}.{what}: needs `memory: true`"
            for what in MEMORY
            if what in wanted and not case.memory
        ]
    arguments = list(registry.entry("workload", case.name).arguments)
    if len(case.vary) > 1:
        problems.append(f"vary: one argument, not {', '.join(case.vary)}")
    for name, values in case.vary.items():
        if name not in arguments:
            near = suggest(name, arguments)
            problems.append(f"vary: {case.name} takes no {name!r}.{near}")
        if not values:
            problems.append(f"vary.{name}: name at least one value")
        problems += [
            f"vary.{name}: {value!r}; numbers, as a plot is drawn over them"
            for value in values
            if isinstance(value, bool) or not isinstance(value, int | float)
        ]
    if case.repeats is not None and case.repeats < 1:
        problems.append(f"repeats: {case.repeats}; at least 1")
    return problems


def metrics(cases: list[dict[str, Any]]) -> dict[str, float]:
    """The figures that a summary holds."""
    values = {}
    for case in cases:
        for name, contender in {OURS: case[OURS], **case["baselines"]}.items():
            if "seconds" in contender:
                values[f"{case['title']}/{name}/seconds"] = contender["seconds"]
            for what, ratio in contender.get("ratio", {}).items():
                values[f"{case['title']}/{name}/{what}"] = ratio
    return values


def line(case: dict[str, Any]) -> str:
    """A case in one line, for the log."""
    parts = [f"{case['title']}: {case[OURS]['seconds']:.3g} s"]
    for name, baseline in case["baselines"].items():
        if "seconds" in baseline:
            ratio = ", ".join(f"{what} {x:.2f}" for what, x in baseline["ratio"].items())
            parts.append(f"{name} {baseline['seconds']:.3g} s ({ratio})")
        else:
            parts.append(f"{name}: {not_timed(baseline)}, not timed")
    parts += [
        f"{one['measure']} {bound(one)}: {'yes' if one['reached'] else 'NO'}"
        for one in case["reach"]
    ]
    return "; ".join(parts)
