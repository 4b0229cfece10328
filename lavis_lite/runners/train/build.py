"""A training run is built whole, by one function, before its first step."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import nn

from lavis_lite import distributed
from lavis_lite.config.schema import TrainConfig
from lavis_lite.data.loader import TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.stored_images import StoredImages
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models import zoo
from lavis_lite.models.frozen_vision import demand_frozen
from lavis_lite.modules.layers.tower_layers import recompute_activations
from lavis_lite.runners.evaluate import (
    EvaluationContext,
    Evaluations,
    build_processors,
    keep_tokens,
    open_datasets,
    processor_arguments,
)
from lavis_lite.runners.loggers import Logger, Record, open_loggers
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.process import seed_everything
from lavis_lite.runners.run_folder import RunFolder
from lavis_lite.runners.signals import StopSignals
from lavis_lite.runners.train.checkpoints import restore
from lavis_lite.runners.train.freeze import freeze
from lavis_lite.runners.train.hooks import guessing_values
from lavis_lite.runners.train.lora import Adapters
from lavis_lite.runners.train.loss_module import LossModule, parallelize, to_device
from lavis_lite.runners.train.nonfinite import SkippedSteps
from lavis_lite.runners.train.optimizer import build_optimizer, learning_rate
from lavis_lite.runners.train.resume import Start, find_start
from lavis_lite.runners.train.training import Progress, Training
from lavis_lite.runners.train.vocabulary import tell_unknown_words
from lavis_lite.runners.train.weight_average import WeightAverage
from lavis_lite.runners.vision_tokens import KeptTokens


class Datasets(NamedTuple):
    """The opened datasets of a run: those it trains on, and one for each evaluator."""

    train: list[Any]
    evaluate: list[Any]


def open_data(config: TrainConfig) -> Datasets:
    """Open the datasets of a run.

    Raises:
        DataError: one cannot be opened.
    """
    seed_everything(config.run.seed)
    return Datasets(
        open_datasets(config.data.train if config.run.max_steps else []),
        open_datasets(evaluator.data for evaluator in config.evaluate),
    )


def build_training(
    config: TrainConfig,
    folder: RunFolder,
    device: torch.device,
    datasets: Datasets | None = None,
    start: Start | None = None,
) -> Training:
    """Build a run and put it where it starts: at step 0, or at a checkpoint of its folder.

    Args:
        config: passed `checks.check`.
        folder: takes the run's files.
        device: this process's device.
        datasets: opened; None opens them.
        start: where the run starts; None looks into the folder.

    Raises:
        ConfigError: parts that do not fit together, or a folder that holds another run.
        DataError: a dataset cannot be opened.
    """
    datasets = datasets or open_data(config)
    start = start or find_start(config, folder)
    run, optim = config.run, config.optim
    seed_everything(run.seed)
    model, adapters = build_model(config, device, resumes=start.checkpoint is not None)
    precision = Precision(run.precision, device)
    kept = keep_tokens(config.data, model, precision)
    if kept is not None and run.max_steps:
        demand_frozen(model)
    quarantine = Quarantine(str(folder.quarantine), run.max_bad_fraction)
    if run.max_steps and start.checkpoint is None:
        process = build_processors(config.data, "train", model).text
        tell_unknown_words(model, datasets.train, process)
    training = Training(
        config=config,
        folder=folder,
        device=device,
        model=model,
        loss_module=LossModule(model),
        sharded=None,
        optimizer=build_optimizer(model, optim),
        schedule=learning_rate(optim, run.max_steps),
        precision=precision,
        average=WeightAverage(model, optim.ema_decay) if optim.ema_decay else None,
        adapters=adapters,
        data=train_data(config, datasets, model, quarantine, kept),
        quarantine=quarantine,
        skipped=SkippedSteps(run.max_skipped_steps, folder.bad_batch),
        evaluations=Evaluations(
            config.evaluate,
            datasets.evaluate,
            config.data,
            model,
            folder,
            EvaluationContext(device, run.seed, precision, folder.path),
            run.max_bad_fraction,
            kept,
        ),
        checkpointer=start.checkpointer,
        loggers=[],
        signals=StopSignals(),
        progress=Progress(),
    )
    if start.checkpoint is not None:
        restore(training, start.checkpoint)
    if kept is not None:  # with the weights that the encoder keeps
        kept.fill()
    training = distribute(training, datasets)
    loggers = open_run_loggers(training, start.measures_anew)
    return dataclasses.replace(training, loggers=loggers)


def build_model(
    config: TrainConfig, device: torch.device, resumes: bool
) -> tuple[nn.Module, Adapters | None]:
    """Build the model that trains, on its device: adapted, frozen and recomputing as configured.

    Args:
        config: of the run.
        device: where the model goes.
        resumes: leave its initial weights unread: they would be replaced, and may be gone.
    """
    component = dataclasses.replace(config.model, checkpoint=None) if resumes else config.model
    model = zoo.build_model(component).to(device).train()
    adapters = Adapters(model, config.optim.lora) if config.optim.lora else None
    freeze(model, config.optim.freeze)
    checkpointing = config.run.gradient_checkpointing
    recompute_activations(model, "vision", checkpointing.vision, checkpointing.keep)
    recompute_activations(model, "text", checkpointing.text, checkpointing.keep)
    return model, adapters


def build_data(
    config: TrainConfig,
    datasets: Datasets,
    model: nn.Module,
    quarantine: Quarantine,
    num_workers: int,
    stored: StoredImages | None = None,
) -> TrainData:
    """Build the training batches of this process.

    Args:
        config: of the run.
        datasets: opened.
        model: its ``image_size`` sizes the images.
        quarantine: judges unreadable samples.
        num_workers: processes that read.
        stored: what is read in place of images; None reads images.
    """
    return TrainData(
        datasets.train,
        [dataset.weight for dataset in config.data.train],
        build_processors(config.data, "train", model),
        batch_size=config.data.batch_size,
        num_workers=num_workers,
        seed=config.run.seed,
        quarantine=quarantine,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pin_memory=next(model.parameters()).device.type == "cuda",
        stored=stored,
        texts_per_image=config.data.texts_per_image,
    )


def train_data(
    config: TrainConfig,
    datasets: Datasets,
    model: nn.Module,
    quarantine: Quarantine,
    kept: KeptTokens | None,
) -> TrainData | None:
    """Build the training batches as the run reads them; None in a run without steps.

    Args:
        config, datasets, model, quarantine: as of ``build_data``.
        kept: keeps the tokens of the vision encoder, and is filled before the first batch.
    """
    if not config.run.max_steps:
        return None
    stored = None
    if kept is not None:
        image, crops = config.data.processors.image.train.spec, kept.options.crops
        stored = kept.images("train", datasets.train, image, processor_arguments(model), crops)
    return build_data(config, datasets, model, quarantine, config.data.num_workers, stored)


def distribute(training: Training, datasets: Datasets) -> Training:
    """Return the run with its loss module compiled and spread over the processes as configured."""
    run = training.config.run
    loss_module = LossModule(training.model, run.compile)
    # With no step left there is no batch to look at, nor gradients to exchange.
    if training.step >= run.max_steps or distributed.world_size() == 1:
        return dataclasses.replace(training, loss_module=loss_module)

    def first_batch() -> tuple[dict[str, Any], StepInfo]:
        # Training reads it again: it is there that bad samples are noted and judged.
        unjudged = Quarantine(None, max_bad_fraction=1.0)
        stored = training.data.stored if training.data is not None else None
        data = build_data(training.config, datasets, training.model, unjudged, 0, stored)
        first = training.step * training.config.optim.accumulate
        samples = next(iter(data.batches(first, first + 1)))
        return to_device(samples, training.device), training.step_info(0)

    parallel = parallelize(loss_module, first_batch, training.optimizer, run.parallel)
    sharded: Any = parallel if run.parallel == "fsdp" else None
    return dataclasses.replace(training, loss_module=parallel, sharded=sharded)


def open_run_loggers(training: Training, measures_anew: bool) -> list[Logger]:
    """Open the logs on the main process; records of steps that will be done again go.

    Args:
        training: stands where it starts.
        measures_anew: drop this step's metrics: what is evaluated has changed.
    """
    if not distributed.is_main():
        return []
    step = training.step

    def keeps(record: Record) -> bool:
        if record["step"] == step and "evaluate" in record:
            return not measures_anew
        return record["step"] <= step

    return open_loggers(
        training.config.run.loggers,
        training.folder,
        step=step,
        max_steps=training.max_steps,
        guessing=guessing_values(training.model),
        keep=keeps,
    )
