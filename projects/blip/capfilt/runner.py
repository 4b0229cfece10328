"""The runner `capfilt`: captions and filters any dataset, shard by shard, exactly once."""

from __future__ import annotations

import functools
import json
import logging
import time
from pathlib import Path
from typing import Any, Literal

import numpy

from lavis_lite import distributed, registry
from lavis_lite.data.counts import Counts
from lavis_lite.data.seeding import stable_hash
from lavis_lite.distributed import choose
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.capfilt import report
from lavis_lite.projects.blip.capfilt.captioner import option_problems
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig, SourceConfig
from lavis_lite.projects.blip.capfilt.executors import EXECUTORS, needs_of, torchrun_place
from lavis_lite.projects.blip.capfilt.job import (
    RECORDS,
    STATS,
    Folder,
    config_settings,
    refuse_changed,
)
from lavis_lite.projects.blip.capfilt.names import captioner_problems, scorer_problems
from lavis_lite.projects.blip.capfilt.stats import add
from lavis_lite.projects.blip.capfilt.table import need_pyarrow
from lavis_lite.projects.blip.capfilt.tabulate import tabulate
from lavis_lite.projects.blip.capfilt.throughput import bytes_written, read_timings
from lavis_lite.projects.blip.capfilt.truth import judge_filter
from lavis_lite.projects.blip.capfilt.worker import work
from lavis_lite.report import Section
from lavis_lite.runners.run_folder import RunFolder, read_json, write_json, write_text
from lavis_lite.runners.signals import StopSignals

log = logging.getLogger(__name__)
_MOST_KEYS = 10_000_000  # whose repetition is looked for at the end: 80 MB


@registry.register("runner", "capfilt")
class CapfiltRunner:
    """Writes captions for a dataset's images and keeps those texts that fit, old and new.

    The output folder is itself a dataset, `bootstrapped`. Started again it computes what is missing
    and nothing else; several starts at a time share the work.

    Args:
        config: the run.
        shard_size: rows per shard: what is computed at once, and lost when a worker dies.
        executor: `serial` in this process; `process`, `workers` processes of this machine;
            `torchrun`, the processes that it started; `ray`, `workers` tasks on a cluster.
        workers: for `process` and `ray`.
    """

    def __init__(
        self,
        config: CapfiltConfig,
        shard_size: int = 1000,
        executor: Literal["serial", "process", "torchrun", "ray"] = "serial",
        workers: int = 2,
    ) -> None:
        self.config = config
        self.shard_size, self.executor, self.workers = shard_size, executor, workers
        check(config, shard_size, workers)

    def run(self) -> dict[str, Any]:
        """Bootstrap the dataset; returns the counts of all shards.

        Raises:
            ConfigError: the folder holds a run with other models, settings or input.
            DataError: too many samples were bad.
        """
        config = self.config
        folder, run = Folder(config.run.output_dir), RunFolder(config.run.output_dir)
        begin = time.perf_counter()
        with StopSignals() as signals, signals.at_once():
            run.refuse_other_kind(config.runner.name)
            refuse_changed(folder, config_settings(config, self.shard_size), only_config=True)
            if is_main() or distributed.world_size() > 1:
                folder.path.mkdir(parents=True, exist_ok=True)
                run.claim(config, choose(config.run.device))
            task = functools.partial(work, config, self.shard_size)
            needs = needs_of(config.run.num_threads, config.run.device)
            EXECUTORS[self.executor](task, self.workers, needs)
            if is_main():
                # Runs that shared the work may end at the same moment: one after the other.
                with locked(folder.path / ".collect.lock", wait=True):
                    total = collect(folder, config.data)
                    if config.output.table:  # of shards that were done before it was asked for
                        tabulate(folder.path)
                    self._finish(folder, total, round(time.perf_counter() - begin, 1))
            else:
                total = read_totals(folder)
            distributed.barrier()
        return total

    def _finish(self, folder: Folder, total: dict[str, Any], seconds: float) -> None:
        name = self.config.run.report
        page = report.write(folder, self.config, total, name) if name else None
        speed = read_timings(folder)
        figures = shares(total) | {
            "images_per_second": round(speed.images_per_second or 0.0, 3),
            "images_per_cpu_second": round(speed.images_per_cpu_second or 0.0, 3),
            "bytes_per_image": round(sum(total["bytes"].values()) / max(1, total["images"])),
        }
        runner = self.config.runner.name
        counted = Counts(total["read"], total["images"], total["unreadable"])
        counts = {"images": counted.as_dict()}
        record = {"step": 0, "evaluate": runner, **figures, "seconds": seconds}
        record["counts"] = counts
        write_text(folder.path / "metrics.jsonl", json.dumps(record) + "\n")
        summary = {"step": 0, "seconds": seconds, "report": page, "metrics": figures}
        summary["counts"] = {runner: counts}
        summary["seconds_by_stage"] = {n: round(s, 3) for n, s in speed.stages.items()}
        if total["truth"] and "roc" in total["truth"]:
            summary["roc"] = total["truth"]["roc"]
        write_json(folder.path / "complete.json", summary)
        log.info(
            "complete: %d of %d web texts and %d of %d synthetic ones were kept, of %s; %s",
            total["web"]["kept"],
            total["web"]["texts"],
            total["synthetic"]["kept"],
            total["synthetic"]["texts"],
            counted.spell("images"),
            page or folder.path,
        )

    @staticmethod
    def report_sections(path: Path, config: CapfiltConfig) -> list[Section]:
        """Return the sections that a pipeline's page shows about a run in the folder ``path``."""
        folder = Folder(path)
        return report.sections(folder, config, read_totals(folder))


def is_main() -> bool:
    """True if this process writes the files about all shards."""
    return distributed.is_main() and torchrun_place().number == 0


SCORES = {"itm": (0.0, 1.0), "itc": (-1.0, 1.0)}  # the ranges of a filter's scores


def check(config: CapfiltConfig, shard_size: int, workers: int) -> None:
    """Check how the values fit together; builds and writes nothing.

    Raises:
        ConfigError: all problems in one report.
    """
    problems = []
    if config.captioner is None and config.filter is None and not config.scorers:
        problems.append("captioner, filter, scorers: at least one of them")
    for name, value in (("shard_size", shard_size), ("workers", workers)):
        if value < 1:
            problems.append(f"runner.{name}: {value}; at least 1")
    several = config.captioner if isinstance(config.captioner, list) else [config.captioner]
    for place, one in enumerate(several):
        model = registry.entry("model", one.name).result if one is not None else None
        if one is not None and model is not None and hasattr(model, "generate"):
            key = f"captioner[{place}]" if isinstance(config.captioner, list) else "captioner"
            problems += option_problems(model, one.generate, key)
    taken = [config.filter.score] if config.filter is not None else []
    problems += captioner_problems(config)
    problems += scorer_problems(config.scorers, config.captioner is not None, taken)
    problems += _filter_problems(config)
    if config.output.table:
        need_pyarrow("output.table")
    if problems:
        raise ConfigError("\n".join(problems))


def _filter_problems(config: CapfiltConfig) -> list[str]:
    judge = config.filter
    if judge is None:
        return []
    problems = []
    if judge.threshold is not None and judge.keep_fraction is not None:
        problems.append("filter.threshold, filter.keep_fraction: one of them, not both")
    low, high = SCORES[judge.score]
    if judge.threshold is not None and not low <= judge.threshold <= high:
        share = judge.threshold / 100
        hint = f"; for {judge.threshold:g} % write {share:g}" if 1 < judge.threshold <= 100 else ""
        problems.append(
            f"filter.threshold: {judge.threshold:g}; scores of `{judge.score}` are from {low:g} to "
            f"{high:g}{hint}"
        )
    if judge.score == "itc" and judge.threshold is None and judge.keep_fraction is None:
        problems.append(
            "filter.threshold: `score: itc` has no natural one; give it, or filter.keep_fraction"
        )
    if judge.keep_fraction is not None and judge.keep_fraction > 1:
        problems.append(f"filter.keep_fraction: from 0 to 1, not {judge.keep_fraction}")
    return problems


def collect(folder: Folder, data: SourceConfig) -> dict[str, Any]:
    """Add up the shards into ``stats.json`` and ``quarantine.jsonl``; constant memory."""
    folder.clean_all()
    job = read_json(folder.job)
    num_shards = job["num_shards"]
    total: dict[str, Any] = {}
    temporary = folder.quarantine.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as quarantine:
        for shard in range(num_shards):
            total = add(total, read_json(folder.file(shard, STATS)))
            quarantine.write(folder.quarantined(shard).read_text("utf-8"))
    temporary.replace(folder.quarantine)
    total["shards"] = num_shards
    total["keys_in_several_shards"] = repeated_keys(folder, num_shards, total["images"])
    total["truth"] = judge_filter(folder, data, num_shards, total["images"])
    total["bytes"] = bytes_written(folder, num_shards)
    total["problems"] = job["problems"]
    total["source"] = job.get("source_counts")  # a release of before counted nothing
    write_json(folder.stats, total)
    return total


def repeated_keys(folder: Folder, num_shards: int, num_records: int) -> int | None:
    """Count the samples with the key of an earlier one; None if there are too many to look.

    Within a shard such a sample is set aside; across shards, which know nothing of each other, both
    stay, with their rows' numbers telling them apart.
    """
    if num_records > _MOST_KEYS:
        return None
    hashes = numpy.empty(num_records, numpy.int64)
    place = 0
    for shard in range(num_shards):
        with folder.file(shard, RECORDS).open(encoding="utf-8") as file:
            for line in file:
                hashes[place] = stable_hash(json.loads(line)["key"])
                place += 1
    return num_records - len(numpy.unique(hashes[:place]))


def read_totals(folder: Folder) -> dict[str, Any]:
    """Read the totals of another process, as far as it has added them up."""
    return read_json(folder.stats)


def shares(total: dict[str, Any]) -> dict[str, float]:
    """Return kept shares in %: of web texts, of synthetic ones, and of images with a text left.

    Where the truth about web texts is known: how many of all and of the kept ones are right, and
    how many of the right ones were kept, in %; and the area under the ROC curve, in [0, 1].
    """
    metrics = {}
    for origin in ("web", "synthetic"):
        if total[origin]["texts"]:
            metrics[f"{origin}_kept"] = 100 * total[origin]["kept"] / total[origin]["texts"]
    metrics["images_kept"] = 100 * total["images_with_a_text"] / max(1, total["images"])
    metrics["set_aside"] = 100 * sum(total["unreadable"].values()) / max(1, total["read"])
    if truth := total["truth"]:
        known = {
            "web_right": truth["right"] / max(1, truth["texts"]),
            "web_precision": truth["precision"],
            "web_recall": truth["recall"],
        }
        metrics |= {name: 100 * share for name, share in known.items() if share is not None}
        metrics |= {f"web_{name}": truth[name] for name in ("auc",) if name in truth}
    return {name: round(value, 3) for name, value in metrics.items()}
