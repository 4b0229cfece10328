"""Configs for the toy plug-in, and processes that run them and may die."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from two_processes import PRELOADED

from lavis_lite import registry
from lavis_lite.config.schema import (
    DataConfig,
    Evaluator,
    Modality,
    OptimConfig,
    ProcessorsConfig,
    RunConfig,
    TrainConfig,
    TrainDataset,
)
from lavis_lite.registry.component import Component, ModelComponent
from lavis_lite.registry.plugins import load_plugin

TOY = str(Path(__file__).with_name("toy.py"))
load_plugin(TOY)
TOYS = sys.modules[registry.get("model", "toy_model").__module__]
CONTEXT = multiprocessing.get_context("forkserver")


def toy_config(folder: Path | str, **changes: Any) -> TrainConfig:
    """A training run of 12 steps; ``changes`` by dotted key, ``__`` for the dot."""
    config = TrainConfig(
        runner=Component("train"),
        plugins=[TOY],
        model=ModelComponent("toy_model"),
        data=DataConfig(
            train=[TrainDataset("toy_rows")],
            processors=ProcessorsConfig(
                Modality(Component("toy_image", {"noise": 0.1}), Component("toy_image")),
                Modality(Component("toy_text"), Component("toy_text")),
            ),
            batch_size=4,
            num_workers=0,
        ),
        optim=OptimConfig(lr=0.02, warmup_steps=3, clip_norm=1.0),
        run=RunConfig(
            output_dir=str(folder), max_steps=12, log_every=1, checkpoint_every=4, device="cpu"
        ),
    )
    for key, value in changes.items():
        config = replaced(config, key.split("__"), value)
    return config


def replaced(config: Any, path: list[str], value: Any) -> Any:
    """A frozen dataclass with the value at a key path exchanged."""
    if len(path) > 1:
        value = replaced(getattr(config, path[0]), path[1:], value)
    return dataclasses.replace(config, **{path[0]: value})


def toy_evaluator(**data: Any) -> Evaluator:
    """Evaluates on six rows."""
    return Evaluator("toy_error", {}, data=Component("toy_rows", {"size": 6, **data}))


def run(config: Any) -> dict[str, Any]:
    """Run a config in this process."""
    from lavis_lite import runners

    return runners.run(config)


def build(config: Any) -> Any:
    """A training run that stands before its first step, in its folder."""
    from lavis_lite.runners.process import join
    from lavis_lite.runners.run_folder import RunFolder
    from lavis_lite.runners.train.build import build_training

    folder, device = RunFolder(config.run.output_dir), join(config.run)
    folder.claim(config, device)
    return build_training(config, folder, device)


def train(training: Any) -> None:
    """Train what ``build`` made, with the hooks of any run."""
    from lavis_lite.runners.train import loop
    from lavis_lite.runners.train.hooks import build_hooks

    loop.train(training, build_hooks(training))


def run_in_process(config: Any, fault: str = "", timeout: float = 60) -> int | None:
    """Run a config in a process of its own; returns its exit code."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    process = CONTEXT.Process(target=_run_with_fault, args=(config, fault))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"still running after {timeout} s")
    return process.exitcode


def _run_with_fault(config: Any, fault: str) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["TOY_FAULT"] = fault
    run(config)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[int]:
    """Another process that is running in ``folder``; yields its number."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_hold, args=(folder, theirs))
    process.start()
    assert ours.poll(60)
    try:
        yield ours.recv()
    finally:
        ours.send("enough")
        process.join(60)


def _hold(folder: Path, pipe: Connection) -> None:
    from lavis_lite.runners.run_folder import RunFolder

    with RunFolder(folder).alone():
        pipe.send(os.getpid())
        pipe.poll(60)


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    timed = ("samples_per_second", "seconds")
    return [{k: v for k, v in json.loads(x).items() if k not in timed} for x in lines]


def weights(folder: Path) -> dict[str, Any]:
    """The final weights."""
    from lavis_lite.checkpoint.weights import read_weights

    return read_weights(str(folder))
