"""The runner `capfilt_score`: adds scores to a finished run, for the price of those alone."""

from __future__ import annotations

import functools
import json
import logging
import time
from pathlib import Path
from typing import Any, Literal

from lavis_lite import distributed, registry
from lavis_lite.data.counts import Counts
from lavis_lite.distributed import choose
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.capfilt import report_scores
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.executors import EXECUTORS, needs_of
from lavis_lite.projects.blip.capfilt.job import STATS, Folder, refuse_changed
from lavis_lite.projects.blip.capfilt.names import scorer_problems
from lavis_lite.projects.blip.capfilt.runner import is_main
from lavis_lite.projects.blip.capfilt.score_config import CapfiltScoreConfig
from lavis_lite.projects.blip.capfilt.score_pass import (
    run_of,
    score_settings,
    score_work,
    scores_folder,
)
from lavis_lite.projects.blip.capfilt.stats import Stats, add
from lavis_lite.projects.blip.capfilt.texts import added_scores
from lavis_lite.report import Section
from lavis_lite.runners.run_folder import RunFolder, read_json, write_json, write_text
from lavis_lite.runners.settings import without_effect
from lavis_lite.runners.signals import StopSignals

log = logging.getLogger(__name__)


@registry.register("runner", "capfilt_score")
class CapfiltScoreRunner:
    """Adds scores to the records of a finished CapFilt run, without computing anything else again.

    Started again it computes what is missing and nothing else; several starts at a time share the
    work.

    Args:
        config: the pass.
        executor: as of `capfilt`.
        workers: for `process` and `ray`.
    """

    def __init__(
        self,
        config: CapfiltScoreConfig,
        executor: Literal["serial", "process", "torchrun", "ray"] = "serial",
        workers: int = 2,
    ) -> None:
        self.config, self.executor, self.workers = config, executor, workers
        problems = list(scorer_problems(config.scorers, has_captions=True))
        if not config.scorers:
            problems.append("scorers: an empty list; name at least one")
        if workers < 1:
            problems.append(f"runner.workers: {workers}; at least 1")
        if problems:
            raise ConfigError("\n".join(problems))

    def run(self) -> dict[str, Any]:
        """Add the scores; returns the counts of all shards.

        Raises:
            ConfigError: the folder holds scores by other models or settings, or of other records;
                or the run has a score of that name.
            DataError: the run is not finished, or too many of its images cannot be read any more.
        """
        config = self.config
        folder, run = Folder(scores_folder(config)), RunFolder(config.run.output_dir)
        begin = time.perf_counter()
        records, job = run_of(config)
        self._refuse_taken(records, job)
        with StopSignals() as signals, signals.at_once():
            run.refuse_other_kind(config.runner.name)
            ignored = without_effect(config)
            refuse_changed(folder, score_settings(config), only_config=True, ignored=ignored)
            if is_main() or distributed.world_size() > 1:
                run.path.mkdir(parents=True, exist_ok=True)
                run.claim(config, choose(config.run.device))
            task = functools.partial(score_work, config, job["shard_size"])
            needs = needs_of(config.run.num_threads, config.run.device)
            EXECUTORS[self.executor](task, self.workers, needs)
            if is_main():
                with locked(folder.path / ".collect.lock", wait=True):
                    total = self._finish(folder, run, round(time.perf_counter() - begin, 1))
            else:
                total = read_json(folder.stats)
            distributed.barrier()
        return total

    def _refuse_taken(self, records: Path, job: dict[str, Any]) -> None:
        own = scores_folder(self.config)
        others = [one for path, one in added_scores(records) if path != own]
        taken = [name for one in (job, *others) for name in one.get("text_scores", [])]
        taken += [name for one in (job, *others) for name in one.get("image_scores", [])]
        settings = job.get("settings", {})
        if kind := settings.get("filter.score"):
            taken.append(kind)
        has_captions = any(key.startswith(("captioner.", "captioner[")) for key in settings)
        if problems := list(scorer_problems(self.config.scorers, has_captions, taken)):
            raise ConfigError("\n".join(problems))

    def _finish(self, folder: Folder, run: RunFolder, seconds: float) -> Stats:
        folder.clean_all()
        num_shards = read_json(folder.job)["num_shards"]
        total: Stats = {}
        for shard in range(num_shards):
            total = add(total, read_json(folder.file(shard, STATS)))
        total["shards"] = num_shards
        write_json(folder.stats, total)
        name = self.config.run.report
        page = report_scores.write(run.path, self.config, total, name) if name else None
        runner = self.config.runner.name
        figures = report_scores.scored_shares(total)
        counts = {"images": Counts(total["images"], total["images"]).as_dict()}
        record = {"step": 0, "evaluate": runner, **figures, "seconds": seconds, "counts": counts}
        write_text(run.metrics, json.dumps(record) + "\n")
        summary = {"step": 0, "seconds": seconds, "report": page, "metrics": figures}
        write_json(run.complete, {**summary, "counts": {runner: counts}})
        log.info("complete: %s; %s", report_scores.spell(total), folder.path)
        return total

    @staticmethod
    def report_sections(path: Path, config: CapfiltScoreConfig) -> list[Section]:
        """Return the sections that a pipeline's page shows about a pass in the folder ``path``."""
        return report_scores.sections(
            read_json(Folder(scores_folder(config)).stats), config.scorers
        )
