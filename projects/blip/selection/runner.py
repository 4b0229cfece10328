"""The runner `select`: texts of a CapFilt run chosen by their stored scores, without any model."""

from __future__ import annotations

import functools
import json
import logging
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

from lavis_lite import registry
from lavis_lite.config import to_yaml
from lavis_lite.errors import ConfigError
from lavis_lite.io.files import sha256_of
from lavis_lite.io.json_files import read_json, write_json, write_text
from lavis_lite.io.redaction import redacted, redacted_words
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.executors import EXECUTORS, Needs, torchrun_place
from lavis_lite.projects.blip.selection import passes, report
from lavis_lite.projects.blip.selection.config import SelectionConfig
from lavis_lite.projects.blip.selection.layout import TEXTS, VERSION, read_manifest
from lavis_lite.projects.blip.selection.plan import (
    CHOOSE,
    JUDGED,
    LOWER,
    Pass,
    Plan,
    make_plan,
    reduced_before,
)
from lavis_lite.projects.blip.selection.rules import parse_fusions, parse_keep, parse_rules
from lavis_lite.projects.blip.selection.stats import limit_of, score_range
from lavis_lite.projects.blip.selection.worker import work
from lavis_lite.runners.settings import differences, settings, without_effect
from lavis_lite.runners.signals import StopSignals

log = logging.getLogger(__name__)


@registry.register("runner", "select")
class SelectRunner:
    """Chooses texts by rules over scores that are there; reads records alone.

    The output folder is a selection, which the dataset `bootstrapped` reads, and
    `lavis-lite export-selection` writes for other tools; no image is copied. Started again it
    continues; a finished selection stays as it is, byte for byte.

    Args:
        config: the selection.
        block_size: images that are looked at together.
        executor: `serial` in this process; `process`, `workers` processes of this machine;
            `torchrun`, the processes that it started; `ray`, `workers` tasks on a cluster.
        workers: for `process` and `ray`.
    """

    def __init__(
        self,
        config: SelectionConfig,
        block_size: int = 50_000,
        executor: Literal["serial", "process", "torchrun", "ray"] = "serial",
        workers: int = 2,
    ) -> None:
        self.config = config
        self.block_size, self.executor, self.workers = block_size, executor, workers
        for name, value in (("block_size", block_size), ("workers", workers)):
            if value < 1:
                raise ConfigError(f"runner.{name}: {value}; at least 1")
        parse_rules(config.rules)
        parse_keep(config.keep)
        parse_fusions(config.scores)

    def run(self) -> dict[str, Any]:
        """Choose; returns the summary, with counts as ``metrics``.

        Raises:
            ConfigError: rules that do not fit the records, or the folder holds something else.
            DataError: records that cannot be read.
        """
        begin = time.perf_counter()
        with StopSignals() as signals, signals.at_once():
            plan = make_plan(self.config, self.block_size)
            self._claim(plan)
            if not plan.folder.is_whole(plan.fingerprint):
                task = functools.partial(work, self.config, self.block_size)
                EXECUTORS[self.executor](task, self.workers, Needs(self.config.run.num_threads))
            if torchrun_place().number != 0:
                return {}
            with locked(plan.folder.path / ".collect.lock", wait=True):
                if not (plan.folder.is_whole(plan.fingerprint) and plan.folder.complete.is_file()):
                    self._finish(plan, round(time.perf_counter() - begin, 1))
        return read_json(plan.folder.complete)

    def _claim(self, plan: Plan) -> None:
        """Write down what is being chosen here, unless the folder holds something else.

        Raises:
            ConfigError: it does.
        """
        folder = plan.folder
        begun = read_json(folder.start)
        owner = begun.get("runner")
        if owner not in (None, self.config.runner.name):
            raise ConfigError(
                f"run.output_dir: {folder.path} holds a {owner!r} run, this is a "
                f"{self.config.runner.name!r} run; choose another folder"
            )
        before = begun.get("decided_by")
        if before is not None and before != plan.settings:
            lines = differences(before, plan.settings, ignored=without_effect(self.config))
            listed = "\n".join(f"  {line}" for line in lines)
            raise ConfigError(
                f"run.output_dir: {folder.path} holds a selection by other rules, or of records "
                f"that have changed since:\n{listed}\n"
                "Go back to them, delete the folder, or choose another run.output_dir"
            )
        if torchrun_place().number == 0 and before is None:
            folder.path.mkdir(parents=True, exist_ok=True)
            write_text(folder.config, to_yaml(self.config))
            write_json(
                folder.start,
                {
                    "runner": self.config.runner.name,
                    "command": shlex.join([Path(sys.executable).name, *redacted_words(sys.argv)]),
                    "started": time.strftime("%Y-%m-%d %H:%M:%S"),
                    "settings": settings(self.config),
                    "decided_by": plan.settings,
                },
            )

    def _finish(self, plan: Plan, seconds: float) -> None:
        folder = plan.folder
        if not folder.is_whole(plan.fingerprint):
            write_json(folder.manifest, manifest(plan))
        found = read_manifest(folder.path)
        name = self.config.run.report
        page = report.write(folder, name) if name else None
        figures = metrics(found["counts"])
        record = {"step": 0, "evaluate": self.config.runner.name, **figures, "seconds": seconds}
        write_text(folder.metrics, json.dumps(record) + "\n")
        summary = {"step": 0, "seconds": seconds, "report": page, "metrics": figures}
        write_json(folder.complete, summary)
        passes.clean(plan)
        number = sum(found["counts"]["chosen"].values())
        if not number:
            log.warning("the selection is empty: %s", report.emptying(found))
        log.info(
            "complete: %d of %d texts, of %d of %d images; %s",
            number,
            sum(found["counts"]["texts"].values()),
            found["counts"]["images_with_a_text"],
            found["counts"]["images"],
            page or folder.path,
        )


def manifest(plan: Plan) -> dict[str, Any]:
    """Return all that a selection says of itself: the same for the same records and rules."""
    folder = plan.folder
    parts = []
    for number in range(len(plan.pool.blocks)):
        path = folder.part(number)
        parts.append(
            {
                "name": path.name,
                "size": path.stat().st_size,
                "sha256": sha256_of(path),
                "shards": plan.pool.blocks[number],
            }
        )
    run = plan.pool.run.folder.resolve()
    counts = read_json(passes.result(plan, Pass(CHOOSE)))
    stats = plan.block(0).stats if plan.pool.blocks else {}
    return {
        "version": VERSION,
        "fingerprint": plan.fingerprint,
        "records": str(run),
        "records_from_here": os.path.relpath(run, folder.path.resolve()),
        "records_fingerprint": plan.pool.identity,
        "unfinished_ok": plan.config.data.unfinished_ok,
        "scores": {
            name: dict(zip(("low", "high"), score_range(plan, name, stats), strict=True))
            for name in plan.scores
        },
        "fused": redacted(dict(plan.config.scores)),
        "rules": [
            {"title": rule.title, "said": dict(rule.said), "score": rule.score, **_found(plan, n)}
            for n, rule in enumerate(plan.rules)
        ],
        "keep": {"title": plan.keep.title, "number": plan.keep.number, "by": plan.by},
        "counts": counts,
        "folder": TEXTS,
        "parts": parts,
    }


def _found(plan: Plan, number: int) -> dict[str, Any]:
    """The cut that a rule has, and what is known of it."""
    rule = plan.rules[number]
    reduced = reduced_before(plan, number + 1)[number]
    found: dict[str, Any] = {"limit": limit_of(rule, reduced)}
    if rule.kind == "precision":
        found |= read_json(passes.result(plan, Pass(JUDGED, number)))
    if rule.kind == "fraction":
        every = read_json(passes.result(plan, Pass(LOWER, number)))
        found["strata"] = {
            name: {"limit": cut["score"], "of": cut["of"], "kept": cut["kept"]}
            for name, cut in every.items()
        }
    return found


def metrics(counts: dict[str, Any]) -> dict[str, float]:
    """Return shares in % and, where they are known, precision and recall of the web texts."""
    found: dict[str, float] = {}
    for origin in ("web", "synthetic"):
        if counts["texts"][origin]:
            share = 100 * counts["chosen"][origin] / counts["texts"][origin]
            found[f"{origin}_chosen"] = round(share, 3)
    found["images_chosen"] = round(100 * counts["images_with_a_text"] / max(1, counts["images"]), 3)
    found["texts"] = sum(counts["chosen"].values())
    if truth := counts["truth"]:
        chosen = truth["right_chosen"] + truth["wrong_chosen"]
        if chosen:
            found["web_precision"] = round(100 * truth["right_chosen"] / chosen, 3)
        if truth["right"]:
            found["web_recall"] = round(100 * truth["right_chosen"] / truth["right"], 3)
    return found
