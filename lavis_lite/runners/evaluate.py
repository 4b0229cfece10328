"""The runner `evaluate`, and the evaluation that training shares with it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavis_lite import distributed, registry
from lavis_lite.config.evaluators import evaluator_names
from lavis_lite.config.schema import DataConfig, EvaluateConfig, Evaluator
from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.counts import count_read
from lavis_lite.models import zoo
from lavis_lite.modules.interfaces import Account, Evaluation, Metric
from lavis_lite.modules.layers.compile import compile_towers
from lavis_lite.registry.component import Component
from lavis_lite.runners.loggers import Logger, Record, check_loggers, open_loggers
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.process import join, seed_everything
from lavis_lite.runners.run_folder import RunFolder, write_text
from lavis_lite.runners.signals import StopSignals
from lavis_lite.runners.vision_tokens import KeptTokens

log = logging.getLogger(__name__)


class EvaluationContext:
    """The runner as a metric sees it: device and precision of forward passes, seed, folder."""

    def __init__(
        self, device: torch.device, seed: int, precision: Precision, output_dir: Path
    ) -> None:
        self.device = device
        self.seed = seed
        self.output_dir = output_dir
        self.autocast: Callable[[], AbstractContextManager[Any]] = precision.autocast


def build_processors(data: DataConfig, split: str, model: nn.Module) -> Processors:
    """The image and text processor of ``split`` (train or eval) for the model's image size."""
    runtime = processor_arguments(model)
    image, text = (
        registry.build("processor", getattr(modality, split).spec, **runtime)
        for modality in (data.processors.image, data.processors.text)
    )
    return Processors(image=image, text=text)


def processor_arguments(model: nn.Module) -> dict[str, Any]:
    """The arguments that a model brings to its processors: its image size, where it has one."""
    image_size = getattr(model, "image_size", None)
    return {} if image_size is None else {"image_size": image_size}


def keep_tokens(data: DataConfig, model: nn.Module, precision: Precision) -> KeptTokens | None:
    """Return the keeper of the vision encoder's tokens; None where pixels are encoded anew.

    Raises:
        ConfigError: a model without a vision encoder.
    """
    if data.vision_tokens is None:
        return None
    return KeptTokens(
        data.vision_tokens,
        model,
        precision,
        batch_size=data.batch_size,
        num_workers=data.num_workers,
    )


def open_datasets(components: Iterable[Component]) -> list[Any]:
    """The datasets of a config, each opened.

    Raises:
        DataError: of files that are missing or wrong.
    """
    return [registry.build("dataset", component.spec) for component in components]


class Evaluations:
    """The evaluators of a run with their data, built once.

    Args:
        evaluators: what the config lists.
        datasets: of each, opened.
        data: processors, batch size and workers.
        model: its ``image_size`` sizes the images.
        folder: takes the predictions and the quarantine.
        context: what metrics may ask for.
        max_bad_fraction: share of unreadable samples above which an evaluation stops.
        kept: keeps the tokens of the vision encoder, and is filled before the first evaluation.
    """

    def __init__(
        self,
        evaluators: list[Evaluator],
        datasets: list[Any],
        data: DataConfig,
        model: nn.Module,
        folder: RunFolder,
        context: EvaluationContext,
        max_bad_fraction: float,
        kept: KeptTokens | None = None,
    ) -> None:
        self.folder = folder
        self.context = context
        self.max_bad_fraction = max_bad_fraction
        self.parts: dict[str, tuple[Metric, EvalData]] = {}
        self.counts: dict[str, Any] = {}  # evaluator -> unit -> the count of its last evaluation
        if not evaluators:
            return
        processors = build_processors(data, "eval", model)
        names = evaluator_names(evaluators)
        for name, evaluator, dataset in zip(names, evaluators, datasets, strict=True):
            metric = registry.build("metric", evaluator.spec)
            if hasattr(metric, "check"):  # before hours of training, not after them
                metric.check(model)
            stored = None
            if kept is not None:
                image = data.processors.image.eval.spec
                stored = kept.images("eval", [dataset], image, processor_arguments(model))
            rows = EvalData(
                dataset,
                processors,
                batch_size=data.batch_size,
                num_workers=data.num_workers,
                quarantine=Quarantine(str(folder.quarantine), max_bad_fraction),
                pin_memory=context.device.type == "cuda",
                stored=stored,
            )
            self.parts[name] = (metric, rows)

    def run(
        self,
        model: nn.Module,
        step: int,
        write: Callable[[Record], None],
        names: Iterable[str] | None = None,
    ) -> dict[str, float]:
        """Evaluate ``model`` (in eval mode, without gradients) and write its predictions.

        Args:
            model: not wrapped; its training mode is restored afterwards.
            step: what the records say.
            write: takes a record per evaluator, on the main process.
            names: which evaluators; all by default.

        Returns:
            All figures as ``evaluator/figure``.
        """
        records = []
        was_training = model.training
        model.eval()
        try:
            for name in self.parts if names is None else names:
                records.append(self._run_one(name, model, step))
                if distributed.is_main():
                    write(records[-1])
        finally:
            model.train(was_training)
        return figures(records, step)

    def _run_one(self, name: str, model: nn.Module, step: int) -> Record:
        metric, data = self.parts[name]
        log.info("evaluates %s on %d samples", name, len(data.dataset))
        begin = time.perf_counter()
        # The same draws at every evaluation, whatever was evaluated before.
        seed_everything(self.context.seed, "evaluate", name)
        with torch.no_grad():
            result: Evaluation = metric.evaluate(model, data, self.context)
        counts = result.counts or {"rows": count_read(data)}
        for unit, counted in counts.items():
            refuse_too_many(name, unit, counted, self.max_bad_fraction, self.folder)
        self.counts[name] = {unit: counted.as_dict() for unit, counted in counts.items()}
        if distributed.is_main():
            lines = (json.dumps(row, ensure_ascii=False) for row in result.predictions)
            write_text(self.folder.predictions(name), "".join(f"{line}\n" for line in lines))
            if result.submission is not None:
                text = json.dumps(result.submission, ensure_ascii=False)
                write_text(self.folder.submission(name), text)
        seconds = round(time.perf_counter() - begin, 3)
        record = {"step": step, "evaluate": name, **_numbers(name, result), "seconds": seconds}
        return {**record, "counts": self.counts[name]}


def _numbers(name: str, result: Evaluation) -> dict[str, float | str]:
    """A metric's figures, and in place of one that there is none of "n/a: " and the reason."""
    found: dict[str, float | str] = {}
    for key, value in result.metrics.items():
        found[key] = float(value)
        if not math.isfinite(float(value)):
            found[key] = f"n/a: the metric gives {float(value)}"
            log.warning("%s: %s is not finite, and no figure", name, key)
    return found | {key: f"n/a: {reason}" for key, reason in result.missing.items()}


def counts_of(records: Iterable[Record], step: int) -> dict[str, Any]:
    """Read how many samples the figures at ``step`` are of: evaluator -> unit -> count."""
    return {
        record["evaluate"]: record["counts"]
        for record in records
        if record["step"] == step and "counts" in record
    }


def refuse_too_many(
    name: str, unit: str, counted: Account, limit: float, folder: RunFolder
) -> None:
    """Refuse figures when more than a share of what they should be of was set aside.

    A single one is not too many, unless the limit is 0.

    Raises:
        DataError: with the counts by reason.
    """
    bad = sum(counted.set_aside.values())
    if bad > limit * counted.seen and (bad > 1 or not limit):
        raise DataError(
            f"{name}: {counted.spell(unit)}; more are set aside than "
            f"run.max_bad_fraction={limit:g} allows. All of them: {folder.quarantine}"
        )


def figures(records: Iterable[Record], step: int) -> dict[str, float]:
    """The figures of all evaluations at ``step`` as ``evaluator/figure``."""
    return {
        f"{record['evaluate']}/{key}": value
        for record in records
        if "evaluate" in record and record["step"] == step
        for key, value in record.items()
        if key not in ("step", "evaluate", "seconds") and not isinstance(value, str | dict)
    }


@registry.register("runner", "evaluate")
class EvaluateRunner:
    """Computes metrics of existing weights. Run again, it computes them again."""

    def __init__(self, config: EvaluateConfig) -> None:
        self.config = config
        check_loggers(config.run.loggers)
        if not config.evaluate:
            raise ConfigError("evaluate: name at least one metric")

    def run(self) -> dict[str, Any]:
        """Evaluate; the summary holds every figure as ``evaluator/figure``.

        Raises:
            ConfigError: the output folder holds a run of another kind.
        """
        config = self.config
        device = join(config.run)
        seed_everything(config.run.seed)
        # Before there is a folder: a wrong path leaves nothing behind.
        datasets = open_datasets(evaluator.data for evaluator in config.evaluate)
        folder = RunFolder(config.run.output_dir)
        with folder.alone(), StopSignals() as signals, signals.at_once():
            folder.refuse_other_kind(config.runner.name)
            folder.reopen()
            folder.claim(config, device)
            begin = time.perf_counter()
            found, counts = self._evaluate(folder, device, datasets)
            seconds = round(time.perf_counter() - begin, 1)
            summary = {"step": 0, "seconds": seconds, "metrics": found, "counts": counts}
            folder.finish(summary)
        log.info("figures are in %s, predictions beside it", folder.metrics)
        return summary

    def _evaluate(
        self, folder: RunFolder, device: torch.device, datasets: list[Any]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        config = self.config
        seed_everything(config.run.seed)
        model = zoo.build_model(config.model).to(device)
        precision = Precision(config.run.precision, device)
        kept = keep_tokens(config.data, model, precision)
        context = EvaluationContext(device, config.run.seed, precision, folder.path)
        evaluations = Evaluations(
            config.evaluate,
            datasets,
            config.data,
            model,
            folder,
            context,
            config.run.max_bad_fraction,
            kept,
        )
        if kept is not None:
            kept.fill()
        if config.run.compile:
            compile_towers(model, "run.compile")
        loggers: list[Logger] = []
        if distributed.is_main():
            loggers = open_loggers(
                config.run.loggers, folder, step=0, max_steps=0, guessing={}, keep=lambda _: False
            )

        def write(record: Record) -> None:
            for logger in loggers:
                logger.write(record)

        try:
            return evaluations.run(model, 0, write), evaluations.counts
        finally:
            for logger in loggers:
                logger.close()
