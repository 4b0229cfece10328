"""One case of a benchmark: ours and its baselines, compared, then timed in turns."""

from __future__ import annotations

import dataclasses
import gc
import logging
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from lavis_lite import registry
from lavis_lite.measuring.machine import matmul_rate
from lavis_lite.measuring.memory import Peak, peak_of, return_freed
from lavis_lite.measuring.operations import counted
from lavis_lite.measuring.timing import Seconds, in_turns
from lavis_lite.plugins import load_plugin
from lavis_lite.runners.benchmark_config import OURS, BenchmarkRunConfig, Case
from lavis_lite.runners.seeding import seed_everything

log = logging.getLogger(__name__)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Setting(NamedTuple):
    """What all cases of a benchmark share."""

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
    """Everything about a case, as it is recorded.

    Each contender runs once, and its operations are counted; what a baseline came to is compared
    with ours. One that came to something else does other work: it is not timed, and no target
    against it is reached.
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
        peaks = {name: peak_apart(case, name, setting) for name in timed}
    rows = {
        name: figures(seconds, facts["amount"], trial.operations[name], rate, peaks.get(name))
        for name, seconds in timed.items()
    }
    baselines = {
        name: {
            **rows.get(name, {}),
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
    """What the first run of each contender showed; ``contenders`` are those that do equal work."""

    contenders: dict[str, Callable[[], Any]]
    operations: dict[str, int]
    differences: dict[str, list[dict[str, Any]]]


def compare(case: Case, workload: Any) -> Trial:
    """Run every contender once, and compare what the baselines came to with ours."""
    names = case.baselines if case.baselines is not None else list(workload.baselines)
    trial = Trial({}, {}, {})
    ours = None
    for name in (OURS, *names):
        contender = workload.contender(name)
        arithmetic = getattr(workload, "arithmetic", True)
        result, trial.operations[name] = counted(contender) if arithmetic else (contender(), 0)
        if name == OURS:
            ours = result
        else:
            found = [d.record() for d in workload.differences(name, ours, result)]
            trial.differences[name] = found
            if not all(one["agrees"] for one in found):
                log.error("%s: %s comes to something else: %s", case.title, name, found)
                continue
        trial.contenders[name] = contender
    return trial


def all_arguments(case: Case) -> dict[str, Any]:
    """The arguments of a case's workload, defaults included."""
    taken = registry.arguments("workload", case.name)
    defaults = {k: p.default for k, p in taken.items() if p.default is not p.empty}
    return {**defaults, **case.args}


def figures(
    seconds: Seconds, amount: float, operations: int, rate: float, peak: Peak | None
) -> dict[str, Any]:
    """What was found of one contender.

    Returns:
        ``seconds`` (the median), ``spread``, ``runs``, ``cpu_seconds``, ``per_second`` units;
        ``gflop`` of a run and ``share_of_rate``, the part of the machine's matmul rate that it
        reached, where it computes in this process; ``peak_mib`` (above what stood before the run)
        and ``total_mib`` where memory was measured.
    """
    found: dict[str, Any] = {
        "seconds": seconds.median,
        "spread": seconds.spread,
        "runs": seconds.wall,
        "cpu_seconds": statistics.median(seconds.cpu),
        "per_second": amount / seconds.median,
    }
    if operations:
        found["gflop"] = operations / 1e9
        found["share_of_rate"] = operations / seconds.median / rate
    if peak is not None:
        found |= {"peak_mib": peak.growth, "total_mib": peak.total}
    return found


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Ours divided by a baseline's: ``time``, and ``memory`` where it was measured.

    ``cpu`` is that of the processor's seconds, where this process computes: it hardly minds what
    else a shared machine does.
    """
    found = {"time": ours["seconds"] / theirs["seconds"]}
    if ours.get("gflop") and theirs.get("cpu_seconds"):
        found["cpu"] = ours["cpu_seconds"] / theirs["cpu_seconds"]
    if "peak_mib" in ours and theirs.get("peak_mib"):
        found["memory"] = ours["peak_mib"] / theirs["peak_mib"]
    return found


def targets(
    case: Case, ours: dict[str, Any], baselines: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each target of a case with what was found; without a figure it is not reached."""
    listed = []
    for against, wanted in case.reach.items():
        known = ours if against == OURS else baselines.get(against, {}).get("ratio", {})
        for what, at_most in wanted.items():
            value = known.get(what)
            reached = value is not None and value <= at_most
            listed.append(
                {"against": against, "measure": what, "at_most": at_most}
                | {"value": value, "reached": reached}
            )
    return listed


def peak_apart(case: Case, name: str, setting: Setting) -> Peak:
    """The peak memory of one contender's second run, in a process that does nothing else."""
    threads = torch.get_num_threads()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_peak, (case, name, str(setting.device), threads, setting.plugins))


def _peak(case: Case, name: str, device: str, threads: int, plugins: list[str]) -> Peak:
    torch.set_num_threads(threads)
    for plugin in plugins:
        load_plugin(plugin)
    place = torch.device(device)
    contender: Callable[[], Any] = build(case, place).contender(name)
    contender()
    return peak_of(contender, place)
