"""The runner `train`: a step-based loop; everything periodic is a hook."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.checkpoint.directory import AVERAGE
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.config import to_dict
from lavis_lite.config.schema import TrainConfig
from lavis_lite.data.loader import TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models import zoo
from lavis_lite.modules.layers.tower_layers import recompute_activations
from lavis_lite.runners.evaluate import (
    EvaluationContext,
    Evaluations,
    build_processors,
    figures,
    open_datasets,
)
from lavis_lite.runners.loggers import Logger, Record, open_loggers, read_records
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.process import join, seed_everything
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.signals import StopSignals
from lavis_lite.runners.train import hooks
from lavis_lite.runners.train.checks import check
from lavis_lite.runners.train.freeze import freeze
from lavis_lite.runners.train.hooks import StepResult
from lavis_lite.runners.train.lora import Adapters
from lavis_lite.runners.train.loss_module import LossModule, parallelize, to_device
from lavis_lite.runners.train.nonfinite import SkippedSteps
from lavis_lite.runners.train.optimizer import build_optimizer, learning_rate, set_learning_rate
from lavis_lite.runners.train.resume import find_start
from lavis_lite.runners.train.weight_average import WeightAverage

log = logging.getLogger(__name__)


@registry.register("runner", "train")
class TrainRunner:
    """Trains a model; started again in the same folder, it continues exactly where it stood.

    Attributes:
        step: optimizer steps done.
        saved: the step of the last checkpoint.
        record: the last training record.
    """

    def __init__(self, config: TrainConfig) -> None:
        check(config)
        self.config = config
        self.folder = RunFolder(config.run.output_dir)
        self.step = 0
        self.saved = 0
        self.record: Record | None = None

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
        self.device = join(config.run)
        # Before there is a folder: a wrong path leaves nothing behind. But a finished run may have
        # nothing to do, and its data may be gone.
        finished = folder.summary() is not None
        if not finished:
            self._open_datasets()
        with folder.alone():
            self.checkpointer = Checkpointer(
                folder.checkpoints,
                config.run.keep_last,
                config.run.keep_best,
                on_error=config.run.on_disk_full,
            )
            self.start = find_start(config, folder, self.checkpointer)
            if self.start.is_complete:
                log.info("%s is complete: nothing to do", folder.path)
                return folder.summary() or {}
            if finished:
                self._open_datasets()
            folder.claim(config, self.device)
            begin = time.perf_counter()
            self.build()
            self.train()
            return self._finish(time.perf_counter() - begin)

    def train(self) -> None:
        """The loop, from the step that stands in ``self.step`` to the last one."""
        with ExitStack() as stack:
            for hook in self.hooks:
                stack.callback(hook.close)
            self.signals = stack.enter_context(StopSignals())
            for hook in self.hooks:
                hook.before_training(self)
            batches = stack.enter_context(closing(self._batches()))
            while self.step < self.config.run.max_steps:
                for hook in self.hooks:
                    hook.before_step(self)
                result = self.train_step(batches)
                self.step += 1
                for hook in self.hooks:
                    hook.after_step(self, result)
            self.skipped.check_end()
            for hook in self.hooks:
                hook.after_training(self)

    def train_step(self, batches: Iterator[dict[str, Any]]) -> StepResult:
        """One optimizer step on ``optim.accumulate`` micro-batches."""
        begin = time.perf_counter()
        lr = self.schedule(self.step)
        set_learning_rate(self.optimizer, lr)
        seed_everything(self.config.run.seed, self.step, distributed.rank())
        self.skipped.remember(self.model)
        if hasattr(self.model, "update_momentum"):
            self.model.update_momentum()

        # Gradients of the micro-batches add up to that of their mean loss.
        losses: dict[str, Tensor] = {}
        keys: list[str] = []
        num_micro = self.config.optim.accumulate
        for micro in range(num_micro):
            samples = to_device(next(batches), self.device)
            keys += samples["key"]
            # Processes exchange gradients once, in the last backward pass.
            exchange = nullcontext() if micro == num_micro - 1 else self.losses.no_sync()
            with exchange, distributed.watch("the exchange of gradients"):
                with self.precision.autocast():
                    found = self.losses(samples, self._step_info(micro))
                self.precision.backward(found["loss"] / num_micro)
            if self.adapters is not None:
                self.adapters.look_after_backward()
            for name, loss in found.items():
                losses[name] = losses.get(name, 0.0) + loss.detach() / num_micro

        if self.sharded is not None:
            self.sharded.take_gradients()

        # Measure and clip; step only if every process found numbers.
        self.precision.unscale(self.optimizer)
        norm = self._clip()
        loss_ok, norm_ok, go_on = self._agree(losses["loss"], norm)
        if loss_ok and norm_ok:
            self.precision.step(self.optimizer)
            self.skipped.clear()
            if self.average is not None:
                self.average.update()
        else:
            tolerated = loss_ok and self.precision.is_adapting
            self.skipped.skip(self.model, self.step, keys, losses, tolerated)
        self.precision.update()
        self.optimizer.zero_grad(set_to_none=True)

        num_samples = len(keys) * distributed.world_size()
        seconds = time.perf_counter() - begin
        return StepResult(losses, lr, float(norm), num_samples, seconds, stop=not go_on)

    def save(self, found: dict[str, float] | None = None) -> None:
        """Write a checkpoint of the current step, unless there already is one.

        Args:
            found: figures of its evaluation; then it is written again, to be compared by them.
        """
        if self.step == self.saved and not found:
            return
        state = {
            "step": self.step,
            "optimizer": self.sharded.optimizer_state()
            if self.sharded
            else self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "skipped": self.skipped.state_dict(),
            "quarantine": self.quarantine.state_dict(),
        }
        average = self.average.state_dict() if self.average else None
        config = to_dict(self.config)
        if self.adapters is not None:
            state["adapters"] = self.adapters.state_dict()
        with self.adapters.merged() if self.adapters else nullcontext():
            model = self.sharded.model_state() if self.sharded else self.model
            path = self.checkpointer.save(self.step, model, state, config, found, average)
        if path is not None:  # else run.on_disk_full says to go on, and to try again later
            self.saved = self.step

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Within it the model has the weights that ``run.eval_weights`` chooses."""
        if self.average is None or self.config.run.eval_weights == "trained":
            return self._whole_model()
        return self.average.applied()

    def _whole_model(self) -> AbstractContextManager[None]:
        return self.sharded.whole() if self.sharded else nullcontext()

    def write(self, record: Record) -> None:
        """Hand an evaluation's record to the loggers."""
        for logger in self.loggers:
            logger.write(record)

    # ---- parts of a step

    def _batches(self) -> Generator[dict[str, Any], None, None]:
        num_micro, max_steps = self.config.optim.accumulate, self.config.run.max_steps
        if self.data is not None:
            yield from self.data.batches(self.step * num_micro, max_steps * num_micro)

    def _step_info(self, micro_step: int) -> StepInfo:
        run = self.config.run
        return StepInfo(self.step / run.max_steps, self.step, micro_step, run.seed)

    def _clip(self) -> Tensor:
        """() norm of all gradients, before they are clipped to ``optim.clip_norm``."""
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        if self.sharded is not None:
            norm = self.sharded.total_norm()
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optim.clip_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.config.optim.clip_norm, norm)
        return norm

    def _agree(self, loss: Tensor, norm: Tensor) -> list[bool]:
        """Whether on every process the loss is finite, the norm is finite, and no signal came."""
        # .item() waits for the device: the price of never stepping on a gradient that is no number.
        here = [loss.isfinite().item(), norm.isfinite().item(), self.signals.received is None]
        return distributed.all_reduce(torch.tensor(here, dtype=torch.uint8), "min").bool().tolist()

    # ---- building, in order; each part needs those before it

    def _open_datasets(self) -> None:
        config = self.config
        seed_everything(config.run.seed)
        self.train_datasets = open_datasets(config.data.train if config.run.max_steps else [])
        self.eval_datasets = open_datasets(evaluator.data for evaluator in config.evaluate)

    def build(self) -> None:
        """Build model, data, optimizer and hooks, and put them where ``start`` says."""
        config, run = self.config, self.config.run
        seed_everything(run.seed)
        # Initial weights would be replaced at once, and may be gone by now.
        resumes = self.start.checkpoint is not None
        initial = dataclasses.replace(config.model, checkpoint=None) if resumes else config.model
        self.model = zoo.build_model(initial).to(self.device).train()
        lora = config.optim.lora
        self.adapters = Adapters(self.model, lora) if lora else None
        freeze(self.model, config.optim.freeze)
        again = run.gradient_checkpointing
        recompute_activations(self.model, "vision", again.vision, again.keep)
        recompute_activations(self.model, "text", again.text, again.keep)
        self.precision = Precision(run.precision, self.device)
        self.schedule = learning_rate(config.optim, run.max_steps)
        self.optimizer = build_optimizer(self.model, config.optim)
        decay = config.optim.ema_decay
        self.average = WeightAverage(self.model, decay) if decay else None
        self.skipped = SkippedSteps(run.max_skipped_steps, self.folder.bad_batch)
        self.quarantine = Quarantine(str(self.folder.quarantine), run.max_bad_fraction)
        self.data = None
        if run.max_steps:
            self.data = self._build_data(self.quarantine, config.data.num_workers)
        self.evaluations = Evaluations(
            config.evaluate,
            self.eval_datasets,
            config.data,
            self.model,
            self.folder,
            EvaluationContext(self.device, run.seed, self.precision, self.folder.path),
            run.max_bad_fraction,
        )
        self._restore(self.start.checkpoint)
        losses = LossModule(self.model, run.compile)
        # With no step left there is no batch to look at, nor gradients to exchange.
        trains = self.step < run.max_steps
        self.losses: Any = losses
        if trains:
            self.losses = parallelize(losses, self._first_batch, self.optimizer, run.parallel)
        self.sharded = self.losses if run.parallel == "fsdp" and self.losses is not losses else None
        self.hooks = self._build_hooks()

    def _build_data(self, quarantine: Quarantine, num_workers: int) -> TrainData:
        config = self.config
        return TrainData(
            self.train_datasets,
            [dataset.weight for dataset in config.data.train],
            build_processors(config.data, "train", self.model),
            batch_size=config.data.batch_size,
            num_workers=num_workers,
            seed=config.run.seed,
            quarantine=quarantine,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            pin_memory=self.device.type == "cuda",
        )

    def _restore(self, checkpoint: Path | None) -> None:
        """Take up model, optimizer and counts where a checkpoint left them."""
        if checkpoint is None:
            return
        with self.adapters.removed() if self.adapters else nullcontext():
            state = self.checkpointer.load(checkpoint, self.model)
        if self.adapters is not None:
            self.adapters.load_state_dict(state["adapters"])
        self.step = self.saved = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.load_state_dict(state["scaler"])
        self.skipped.load_state_dict(state["skipped"])
        if "quarantine" in state:  # a release of before saved none
            self.quarantine.load_state_dict(state["quarantine"])
        if self.average is not None:
            self.average.load_state_dict(read_weights(checkpoint / AVERAGE))
        log.info("continues after step %d of %d", self.step, self.config.run.max_steps)

    def _first_batch(self) -> tuple[dict[str, Any], StepInfo]:
        # Training reads them again: it is there that bad ones are noted and judged.
        data = self._build_data(Quarantine(None, max_bad_fraction=1.0), num_workers=0)
        first = self.step * self.config.optim.accumulate
        samples = to_device(next(iter(data.batches(first, first + 1))), self.device)
        return samples, self._step_info(0)

    def _build_hooks(self) -> list[hooks.Hook]:
        """In the order in which they act after a step."""
        run = self.config.run
        guessing = hooks.guessing_values(self.model)
        self.loggers: list[Logger] = []
        if distributed.is_main():
            self.loggers = open_loggers(
                run.loggers,
                self.folder,
                step=self.step,
                max_steps=run.max_steps,
                guessing=guessing,
                keep=self._keeps_record,
            )
        return [
            hooks.LogRecords(run.log_every, self.loggers),
            hooks.WatchGuessing(guessing),
            hooks.ProgressBar(),
            hooks.SaveCheckpoints(run.checkpoint_every),
            hooks.StopOnSignal(),
            hooks.Evaluate(run.eval_every),
        ]

    def _keeps_record(self, record: Record) -> bool:
        """Records of steps that will be done again go, and figures that are measured anew."""
        if record["step"] == self.step and "evaluate" in record:
            return not self.start.measures_anew
        return record["step"] <= self.step

    def _finish(self, seconds: float) -> dict[str, Any]:
        records = read_records(self.folder.metrics) if distributed.is_main() else []
        found = distributed.all_gather_object(figures(records, self.step))[0]
        summary = {"step": self.step, "seconds": round(seconds, 1), "metrics": found}
        if problems := self.data.problems if self.data else []:
            summary["problems"] = problems
            log.warning("the training data has problems:\n  %s", "\n  ".join(problems))
        self.folder.finish(summary)
        log.info("complete after %.0f s: %s", seconds, self.folder.path)
        return summary
