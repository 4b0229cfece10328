"""A training run's checkpoints: what they hold, and how a run takes it up again."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path

from lavis_lite.checkpoint.directory import AVERAGE
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.config import to_dict
from lavis_lite.runners.train.training import Training

log = logging.getLogger(__name__)


def save(training: Training, metrics: dict[str, float] | None = None) -> None:
    """Write a checkpoint of the current step, unless there already is one.

    Args:
        training: the run.
        metrics: those of its evaluation; then it is written again, to be compared by them.
    """
    progress, sharded, adapters = training.progress, training.sharded, training.adapters
    if progress.step == progress.saved and not metrics:
        return
    state = {
        "step": progress.step,
        "optimizer": sharded.optimizer_state() if sharded else training.optimizer.state_dict(),
        "scaler": training.precision.state_dict(),
        "skipped": training.skipped.state_dict(),
        "quarantine": training.quarantine.state_dict(),
    }
    average = training.average.state_dict() if training.average else None
    if adapters is not None:
        state["adapters"] = adapters.state_dict()
    with adapters.merged() if adapters else nullcontext():
        model = sharded.model_state() if sharded else training.model
        config = to_dict(training.config)
        path = training.checkpointer.save(progress.step, model, state, config, metrics, average)
    if path is not None:  # else run.on_disk_full says to go on, and to try again later
        progress.saved = progress.step


def restore(training: Training, checkpoint: Path) -> None:
    """Take up model, optimizer and counts where a checkpoint left them.

    Args:
        training: the run, not yet divided over processes.
        checkpoint: of its folder.
    """
    adapters = training.adapters
    with adapters.removed() if adapters else nullcontext():
        state = training.checkpointer.load(checkpoint, training.model)
    if adapters is not None:
        adapters.load_state_dict(state["adapters"])
    training.progress.step = training.progress.saved = state["step"]
    training.optimizer.load_state_dict(state["optimizer"])
    training.precision.load_state_dict(state["scaler"])
    training.skipped.load_state_dict(state["skipped"])
    if "quarantine" in state:  # a release of before saved none
        training.quarantine.load_state_dict(state["quarantine"])
    if training.average is not None:
        training.average.load_state_dict(read_weights(checkpoint / AVERAGE))
    log.info("continues after step %d of %d", training.step, training.max_steps)
