"""The runner `train`: a run in a folder, from its config to its summary."""

from __future__ import annotations

import logging
import time
from typing import Any

from lavis_lite import distributed, registry
from lavis_lite.config.schema import TrainConfig
from lavis_lite.data.counts import accounts
from lavis_lite.runners.data_identity import identities, warn_of_changes
from lavis_lite.runners.evaluate import counts_of, figures
from lavis_lite.runners.loggers import read_records
from lavis_lite.runners.process import join
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.train.build import Datasets, build_training, open_data
from lavis_lite.runners.train.checks import check
from lavis_lite.runners.train.hooks import build_hooks
from lavis_lite.runners.train.loop import train
from lavis_lite.runners.train.resume import find_start
from lavis_lite.runners.train.training import Training

log = logging.getLogger(__name__)


@registry.register("runner", "train")
class TrainRunner:
    """Trains a model; started again in the same folder, it continues exactly where it stood."""

    def __init__(self, config: TrainConfig) -> None:
        check(config)
        self.config = config
        self.folder = RunFolder(config.run.output_dir)

    def run(self) -> dict[str, Any]:
        """Train to ``run.max_steps`` and evaluate.

        Returns:
            ``step``, ``seconds`` of this start, ``metrics`` as ``evaluator/figure``.

        Raises:
            ConfigError: the folder holds a run with other settings.
            DataError: a dataset cannot be opened, or too much of one cannot be read.
            FloatingPointError: too many steps in a row were not finite, or the last one.
            SystemExit: a signal ended the run early, after saving (code 143 or 130).
            ProcessLost: another process of the run failed.
        """
        config, folder = self.config, self.folder
        device = join(config.run)
        # Before there is a folder: a wrong path leaves nothing behind. But a finished run may have
        # nothing to do, and its data may be gone.
        datasets = None if folder.summary() is not None else open_data(config)
        with folder.alone():
            start = find_start(config, folder)
            if start.is_complete:
                log.info("%s is complete: nothing to do", folder.path)
                return folder.summary() or {}
            datasets = datasets or open_data(config)
            rows = identities(datasets.train)
            if start.checkpoint is not None:
                warn_of_changes(folder.last_rows(), rows)
            folder.claim(config, device, rows)
            begin = time.perf_counter()
            training = build_training(config, folder, device, datasets, start)
            train(training, build_hooks(training))
            return finish(training, datasets, time.perf_counter() - begin)


def finish(training: Training, datasets: Datasets, seconds: float) -> dict[str, Any]:
    """Write and return the summary of a run that has done its last step."""
    folder = training.folder
    records = read_records(folder.metrics) if distributed.is_main() else []
    found = figures(records, training.step), counts_of(records, training.step)
    metrics, counts = distributed.all_gather_object(found)[0]
    summary = {"step": training.step, "seconds": round(seconds, 1), "metrics": metrics}
    summary |= {"counts": counts} if counts else {}
    opened = [*datasets.train, *datasets.evaluate]
    summary["data"] = accounts(opened)
    every = (problem for dataset in opened for problem in getattr(dataset, "problems", []))
    if problems := list(dict.fromkeys(every)):
        summary["problems"] = problems
        log.warning("the data has problems:\n  %s", "\n  ".join(problems))
    folder.finish(summary)
    log.info("complete after %.0f s: %s", seconds, folder.path)
    return summary
