"""The hooks around training steps: logging, checkpoints, evaluation, stopping."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lavis_lite import distributed
from lavis_lite.errors import CheckpointError, suggest
from lavis_lite.runners.loggers import Logger, Record, read_records
from lavis_lite.runners.train.checkpoints import save
from lavis_lite.runners.train.training import Training

log = logging.getLogger(__name__)


class StepResult(NamedTuple):
    """The result of a step, for the hooks.

    ``losses`` are this process's () values, mean over micro-batches; ``num_samples`` counts those
    of all processes; ``stop`` says that a signal reached one of the processes.
    """

    losses: dict[str, Tensor]
    lr: float
    grad_norm: float
    num_samples: int
    seconds: float
    stop: bool


class Hook:
    """An action around steps; ``training.step`` is the number of steps done."""

    def before_training(self, training: Training) -> None:
        """Once, before the first step of this process."""

    def before_step(self, training: Training) -> None:
        """Before each step."""

    def after_step(self, training: Training, result: StepResult) -> None:
        """After each step."""

    def after_training(self, training: Training) -> None:
        """Once, after the last step of the run; not when the run is stopped before it."""

    def close(self) -> None:
        """Once, however training ends."""


def guessing_values(model: nn.Module) -> dict[str, float]:
    """Return the value of guessing by record key, for the losses that know it (``prior``)."""
    losses = getattr(model, "losses", None) or {}
    priors = {name: getattr(loss, "prior", None) for name, loss in losses.items()}
    return {f"loss_{name}": prior for name, prior in priors.items() if prior is not None}


def due(every: int, training: Training) -> bool:
    """Tell whether an action of every so many steps (0 never) is due after this step."""
    return every > 0 and training.step % every == 0


class LogRecords(Hook):
    """Every so many steps, after the first and after the last: a record of that step.

    Losses are the step's own (mean over processes and micro-batches), not smoothed, so that a
    resumed run can be compared with an uninterrupted one.
    """

    def __init__(self, every: int, loggers: list[Logger]) -> None:
        self.every = every
        self.loggers = loggers
        self._samples = 0
        self._seconds = 0.0

    def after_step(self, training: Training, result: StepResult) -> None:
        """Count samples and seconds; write a record where one is due."""
        self._samples += result.num_samples
        self._seconds += result.seconds
        ends = training.step in (1, training.max_steps)
        if due(self.every, training) or (self.every and ends):
            record = self._record(training, result)
            self._samples, self._seconds = 0, 0.0
            training.progress.record = record
            write_record(self.loggers, record)

    def _record(self, training: Training, result: StepResult) -> Record:
        # .tolist() waits for the device: only steps that are logged pay for it.
        losses = torch.stack([loss.float() for loss in result.losses.values()])
        values = (distributed.all_reduce(losses) / distributed.world_size()).tolist()
        # The file is shared, so each process knows of most of what the others found.
        bad = distributed.all_reduce(torch.tensor(training.quarantine.total), "max")
        record: Record = {
            "step": training.step,
            **dict(zip(result.losses, values, strict=True)),
            "lr": result.lr,
            "grad_norm": result.grad_norm,
            "samples_per_second": round(self._samples / max(self._seconds, 1e-9), 3),
        }
        counts = {"quarantined": int(bad), "skipped": training.skipped.total}
        return record | {name: count for name, count in counts.items() if count}

    def close(self) -> None:
        """Close the loggers."""
        for logger in self.loggers:
            logger.close()


class ProgressBar(Hook):
    """A bar on a terminal; nothing where the output is a file or a pipe, or on other processes."""

    def before_training(self, training: Training) -> None:
        """Show the bar, and let log lines appear above it."""
        self._bar = tqdm(
            total=training.max_steps,
            initial=training.step,
            disable=None if distributed.is_main() else True,
            unit="step",
            dynamic_ncols=True,
        )
        self._redirect = None if self._bar.disable else logging_redirect_tqdm()
        if self._redirect:
            self._redirect.__enter__()

    def after_step(self, training: Training, result: StepResult) -> None:
        """Move the bar on."""
        if training.progress.record:
            self._bar.set_postfix(loss=f"{training.progress.record['loss']:.3f}", refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if hasattr(self, "_bar"):
            if self._redirect:
                self._redirect.__exit__(None, None, None)
            self._bar.close()


class WatchGuessing(Hook):
    """Warns once if a loss still equals that of guessing after a fifth of the run.

    A model that learns nothing about matching sits at the entropy of its labels (0.6365 when one
    pair in three matches), which looks like progress next to the other losses.

    Args:
        guessing: record key of a loss -> its value for mere guessing.
        after: fraction of the run before which nothing is said.
        within: relative distance that counts as guessing.
    """

    def __init__(
        self, guessing: Mapping[str, float], after: float = 0.2, within: float = 0.01
    ) -> None:
        self.guessing = dict(guessing)
        self.after = after
        self.within = within
        self._seen: Record | None = None
        self._means: dict[str, float] = {}
        self._count = 0

    def after_step(self, training: Training, result: StepResult) -> None:
        """Follow the running mean of each such loss over the records."""
        if training.progress.record is self._seen or training.progress.record is None:
            return
        self._seen = training.progress.record
        self._count += 1
        weight = max(0.1, 1 / self._count)
        for name, guess in list(self.guessing.items()):
            mean = self._means.get(name, 0.0)
            if math.isfinite(training.progress.record[name]):
                mean += weight * (training.progress.record[name] - mean)
            self._means[name] = mean
            enough = self._count >= 5 and training.step >= self.after * training.max_steps
            if enough and abs(mean - guess) <= self.within * guess:
                del self.guessing[name]
                log.warning(
                    "%s is %.4f after %d of %d steps: guessing gives %.4f, so nothing has been "
                    "learnt about it yet. Usual causes: a learning rate too high or too low, "
                    "captions that do not belong to their images, too few steps.",
                    name.removeprefix("loss_"),
                    mean,
                    training.step,
                    training.max_steps,
                    guess,
                )


class SaveCheckpoints(Hook):
    """Every so many steps and at the end."""

    def __init__(self, every: int) -> None:
        self.every = every

    def after_step(self, training: Training, result: StepResult) -> None:
        """Save where it is due."""
        if due(self.every, training):
            save(training)

    def after_training(self, training: Training) -> None:
        """Save the result, before the final evaluation, so that a kill there loses nothing.

        Raises:
            CheckpointError: it could not be saved; ``run.on_disk_full`` is about those before it.
        """
        save(training)  # not when max_steps is 0: step 0 counts as saved
        if training.progress.saved != training.step:
            raise CheckpointError(
                f"{training.folder.checkpoints}: the result, step {training.step}, could not be "
                "saved; make room, and the same command continues from the last checkpoint"
            )


def write_record(loggers: Sequence[Logger], record: Record) -> None:
    """Hand a record to every logger."""
    for logger in loggers:
        logger.write(record)


def evaluated_weights(training: Training) -> AbstractContextManager[None]:
    """Give the model the weights that ``run.eval_weights`` chooses, within the context."""
    if training.average is not None and training.config.run.eval_weights == "ema":
        return training.average.applied()
    return training.sharded.whole() if training.sharded else nullcontext()


class Evaluate(Hook):
    """Every so many steps and at the end; a restart makes up for what a killed run missed."""

    def __init__(self, every: int) -> None:
        self.every = every

    def before_training(self, training: Training) -> None:
        """Evaluate what was due at the checkpoint that the run continues from."""
        if training.step and training.step < training.max_steps and due(self.every, training):
            self._evaluate(training)

    def after_step(self, training: Training, result: StepResult) -> None:
        """Evaluate where it is due; the end has its own turn."""
        if due(self.every, training) and training.step < training.max_steps:
            save(training)
            self._evaluate(training)

    def after_training(self, training: Training) -> None:
        """Evaluate the result."""
        self._evaluate(training)

    def _evaluate(self, training: Training) -> None:
        done = [
            record["evaluate"]
            for record in (read_records(training.folder.metrics) if distributed.is_main() else [])
            if record["step"] == training.step and "evaluate" in record
        ]
        done = distributed.all_gather_object(done)[0]
        names = [name for name in training.evaluations.parts if name not in done]
        write = partial(write_record, training.loggers)
        # Everything is saved: a signal need not wait for the evaluation.
        with training.signals.at_once():
            with evaluated_weights(training):
                found = training.evaluations.run(training.model, training.step, write, names)
            best = training.config.run.keep_best
            if best in found and training.step:
                save(training, found)
            elif best and found:
                log.error(
                    "run.keep_best: no figure %r.%s Figures: %s",
                    best,
                    suggest(best, found),
                    ", ".join(found),
                )


class StopOnSignal(Hook):
    """Ends the run after the step in which a signal reached any of its processes."""

    def after_step(self, training: Training, result: StepResult) -> None:
        """Save and leave."""
        if result.stop:
            save(training)
            log.warning("stopped after step %d; the same command continues", training.step)
            raise training.signals.exit()


def build_hooks(training: Training) -> list[Hook]:
    """Build the hooks of a run, in the order in which they act after a step."""
    run = training.config.run
    return [
        LogRecords(run.log_every, training.loggers),
        WatchGuessing(guessing_values(training.model)),
        ProgressBar(),
        SaveCheckpoints(run.checkpoint_every),
        StopOnSignal(),
        Evaluate(run.eval_every),
    ]
