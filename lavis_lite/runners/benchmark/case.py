"""One case of a benchmark: ours and its baselines, compared, then timed in turns."""

from __future__ import annotations

import dataclasses
import gc
import logging
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import torch

from lavis_lite import registry
from lavis_lite.modules.layers.flops import counted
from lavis_lite.registry.plugins import load_plugin
from lavis_lite.runners.benchmark.config import (
    AT_LEAST,
    MEMORY,
    OURS,
    BenchmarkRunConfig,
    Case,
)
from lavis_lite.runners.benchmark.machine import matmul_rate
from lavis_lite.runners.benchmark.memory import Peak, peak_of, return_freed
from lavis_lite.runners.benchmark.timing import Seconds, in_turns
from lavis_lite.runners.process import seed_everything

log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Setting(NamedTuple):
    """The settings that all cases of a benchmark share."""

    run: BenchmarkRunConfig
    device: torch.device
    plugins: list[str]


def expand(cases: list[Case]) -> Iterator[Case]:
    """Each case; one that varies an argument as a case of each of its values."""
    for case in cases:
        if not case.vary:
            yield case
        for name, values in case.vary.items():
            for value in values:
                title = f"{case.title}, {name} {value}"
                yield dataclasses.replace(case, title=title, args={**case.args, name: value})


def build(case: Case, device: torch.device) -> Any:
    """The workload of a case; its weights and inputs depend on its arguments alone."""
    seed_everything(0)
    return registry.build("workload", case.spec, device=device, precision=case.precision)


def measure(case: Case, setting: Setting) -> dict[str, Any]:
    """Measure a case and return its record.

    Each contender runs once, and its operations are counted; what a baseline came to is compared
    with ours. One that came to something else does other work, and one that raised does none: it
    is not timed, and no target against it is reached.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    rate = matmul_rate(setting.device, DTYPES[case.precision])
    workload = build(case, setting.device)
    facts = {"unit": workload.unit, "amount": workload.amount}
    trial = compare(case, workload)
    run = setting.run
    timed = in_turns(trial.contenders, case.repeats or run.repeats, run.warmup, setting.device)
    trial.contenders.clear()
    del workload
    peaks = {}
    if case.memory:
        gc.collect()  # what this process holds is missing to those that are watched
        return_freed()
        peaks = {name: peak_if_any(case, name, setting) for name in timed}
    rows = {
        name: figures(seconds, facts["amount"], trial.operations[name], rate, peaks.get(name))
        for name, seconds in timed.items()
    }
    baselines = {
        name: {
            **rows.get(name, {}),
            **({"error": trial.errors[name]} if name in trial.errors else {}),
            "differences": found,
            "ratio": ratios(rows[OURS], rows[name]) if name in rows else {},
        }
        for name, found in trial.differences.items()
    }
    return {
        "title": case.title,
        "workload": case.name,
        "settings": all_arguments(case),
        "precision": case.precision,
        "device": str(setting.device),
        "threads": torch.get_num_threads(),
        "load": load,
        **facts,
        "matmul_gflop_per_second": rate / 1e9,
        OURS: rows[OURS],
        "baselines": baselines,
        "reach": targets(case, rows[OURS], baselines),
    }


class Trial(NamedTuple):
    """The results of the first run of each contender.

    ``contenders`` are those that do equal work, ``errors`` the reasons of baselines that cannot
    run here.
    """

    contenders: dict[str, Callable[[], Any]]
    operations: dict[str, int]
    differences: dict[str, list[dict[str, Any]]]
    errors: dict[str, str]


def compare(case: Case, workload: Any) -> Trial:
    """Run every contender once, and compare what the baselines came to with ours."""
    names = case.baselines if case.baselines is not None else list(workload.baselines)
    contender, ours, operations = first_run(workload, OURS)
    trial = Trial({OURS: contender}, {OURS: operations}, {}, {})
    for name in names:
        try:
            contender, result, trial.operations[name] = first_run(workload, name)
            found = [d.record() for d in workload.differences(name, ours, result)]
        except Exception as error:  # another package's code, or a package that is not there
            trial.errors[name], trial.differences[name] = in_a_line(error), []
            log.exception("%s: %s cannot run", case.title, name)
            continue
        trial.differences[name] = found
        if all(one["agrees"] for one in found):
            trial.contenders[name] = contender
        else:
            log.error("%s: %s has a different result: %s", case.title, name, found)
    return trial


def first_run(workload: Any, name: str) -> tuple[Callable[[], Any], Any, int]:
    """A contender, what it came to, and its operations, where it is arithmetic that is measured."""
    contender = workload.contender(name)
    arithmetic = getattr(workload, "arithmetic", True)
    result, operations = counted(contender) if arithmetic else (contender(), 0)
    return contender, result, operations


def in_a_line(error: Exception) -> str:
    """An error's kind and the first line of its text, for a table."""
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]


def all_arguments(case: Case) -> dict[str, Any]:
    """The arguments of a case's workload, defaults included."""
    taken = registry.entry("workload", case.name).arguments
    defaults = {k: p.default for k, p in taken.items() if p.default is not p.empty}
    return {**defaults, **case.args}


def figures(
    seconds: Seconds, amount: float, operations: int, rate: float, peak: Peak | None
) -> dict[str, Any]:
    """Return the measured values of one contender.

    Returns:
        ``seconds`` (the median), ``spread``, ``runs``, ``cpu_seconds``, ``per_second`` units;
        ``gflop`` of a run and ``share_of_rate``, the part of the machine's matmul rate that it
        reached, where it computes in this process; where memory was measured ``peak_mib``, what
        the run added at its highest, and ``total_mib``, all that its process held then.
    """
    values: dict[str, Any] = {
        "seconds": seconds.median,
        "spread": seconds.spread,
        "runs": seconds.wall,
        "cpu_seconds": statistics.median(seconds.cpu),
        "per_second": amount / seconds.median,
    }
    if operations:
        values["gflop"] = operations / 1e9
        values["share_of_rate"] = operations / seconds.median / rate
    if peak is not None:
        values |= {"peak_mib": peak.growth, "total_mib": peak.total}
    return values


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Ours divided by a baseline's: ``time``, and where it was measured ``memory``, what a run
    adds, and ``total_memory``, with all that its process holds besides.

    ``cpu`` is that of the processor's seconds, where this process computes: it hardly minds what
    else a shared machine does.
    """
    ratio_of = {"time": ours["seconds"] / theirs["seconds"]}
    if ours.get("gflop") and theirs.get("cpu_seconds"):
        ratio_of["cpu"] = ours["cpu_seconds"] / theirs["cpu_seconds"]
    for what, figure in zip(MEMORY, ("peak_mib", "total_mib"), strict=True):
        if figure in ours and theirs.get(figure):
            ratio_of[what] = ours[figure] / theirs[figure]
    return ratio_of


def targets(
    case: Case, ours: dict[str, Any], baselines: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each target of a case with what was found; without a figure it is not reached."""
    listed = []
    for against, wanted in case.reach.items():
        known = ours if against == OURS else baselines.get(against, {}).get("ratio", {})
        for what, limit in wanted.items():
            value, least = known.get(what), what in AT_LEAST
            reached = value is not None and (value >= limit if least else value <= limit)
            listed.append(
                {"against": against, "measure": what, "at_least" if least else "at_most": limit}
                | {"value": value, "reached": reached}
            )
    return listed


def peak_if_any(case: Case, name: str, setting: Setting) -> Peak | None:
    """The peak memory of a contender; None of a baseline that needs more than there is."""
    try:
        return peak_apart(case, name, setting)
    except Exception:
        if name == OURS:
            raise
        log.exception("%s: the memory of %s is not known", case.title, name)
        return None


def peak_apart(case: Case, name: str, setting: Setting) -> Peak:
    """The peak memory of one contender's second run, in a process that does nothing else.

    It builds the workload whole: where a baseline's model is a copy of ours, the total has both.

    Raises:
        MemoryError: that process was killed, as systems do that run out of memory.
    """
    threads = torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    try:
        # Not a multiprocessing.Pool: it would wait for ever for one that was killed.
        with ProcessPoolExecutor(1, context) as pool:
            found = pool.submit(_peak, case, name, str(setting.device), threads, setting.plugins)
            return found.result()
    except BrokenProcessPool:
        raise MemoryError(
            f"the process that watched the memory of {name} died; was there enough of it?"
        ) from None


def _peak(case: Case, name: str, device: str, threads: int, plugins: list[str]) -> Peak:
    torch.set_num_threads(threads)
    for plugin in plugins:
        load_plugin(plugin)
    place = torch.device(device)
    contender: Callable[[], Any] = build(case, place).contender(name)
    contender()
    return peak_of(contender, place)
