"""A training run as data: everything that its loop, its hooks and its checkpoints work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.config.schema import TrainConfig
from lavis_lite.data.loader import TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.runners.evaluate import Evaluations
from lavis_lite.runners.loggers import Logger, Record
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.signals import StopSignals
from lavis_lite.runners.train.lora import Adapters
from lavis_lite.runners.train.loss_module import LossModule
from lavis_lite.runners.train.nonfinite import SkippedSteps
from lavis_lite.runners.train.optimizer import Schedule
from lavis_lite.runners.train.weight_average import WeightAverage

if TYPE_CHECKING:
    from lavis_lite.runners.train.fsdp import Sharded


@dataclass
class Progress:
    """The part of a run that moves with every step.

    Args:
        step: optimizer steps done.
        saved: the step of the last checkpoint.
        record: the last training record.
    """

    step: int = 0
    saved: int = 0
    record: Record | None = None


@dataclass(frozen=True)
class Training:
    """A training run, built whole by ``build_training``.

    Args:
        config: the run's config.
        folder: where its files go.
        device: this process's device.
        model: in training mode on the device.
        loss_module: ``(samples, step_info) -> losses`` of the model, on one process or many.
        sharded: the loss module once more where FSDP2 divides the model, else None.
        optimizer: of the trained parameters.
        schedule: the learning rate by steps done.
        precision: autocast and loss scale.
        average: the moving average of the weights; None without ``optim.ema_decay``.
        adapters: LoRA; None without ``optim.lora``.
        data: the training batches; None in a run without steps.
        quarantine: the unreadable samples of ``data``.
        skipped: the steps that were not finite.
        evaluations: metrics with their data.
        checkpointer: the run's checkpoints.
        loggers: open logs, on the main process.
        signals: tells when the run is asked to stop; caught while training runs.
        progress: where the run stands.
    """

    config: TrainConfig
    folder: RunFolder
    device: torch.device
    model: nn.Module
    loss_module: LossModule | DistributedDataParallel | Sharded
    sharded: Sharded | None
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    precision: Precision
    average: WeightAverage | None
    adapters: Adapters | None
    data: TrainData | None
    quarantine: Quarantine
    skipped: SkippedSteps
    evaluations: Evaluations
    checkpointer: Checkpointer
    loggers: list[Logger]
    signals: StopSignals
    progress: Progress

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.progress.step

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.config.run.max_steps

    def step_info(self, micro_step: int) -> StepInfo:
        """Return the state of the step to come, for its micro-batch number ``micro_step``."""
        return StepInfo(self.step / self.max_steps, self.step, micro_step, self.config.run.seed)
