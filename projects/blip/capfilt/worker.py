"""A worker: loads the models once and takes shards until all of the job are done."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.distributed import choose
from lavis_lite.errors import CheckpointError
from lavis_lite.models import zoo
from lavis_lite.modules.layers.prepack import prepack
from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter, check_options
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.executors import Place
from lavis_lite.projects.blip.capfilt.filter import TextJudge
from lavis_lite.projects.blip.capfilt.job import Job, config_settings, facts, open_job
from lavis_lite.projects.blip.capfilt.shard import BadSamples, Tools, process_shard
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source
from lavis_lite.registry import cards
from lavis_lite.registry.component import ModelComponent
from lavis_lite.registry.plugins import load_plugin
from lavis_lite.runners.heap import keep_freed_memory
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.process import seed_everything

log = logging.getLogger(__name__)


def work(config: CapfiltConfig, shard_size: int, place: Place) -> int:
    """Work until every shard is done, by this worker or another; returns how many this one did.

    Raises:
        ConfigError: the folder holds a run with other models, settings or input.
        DataError: too many samples were bad.
    """
    for plugin in config.plugins:
        load_plugin(plugin)
    keep_freed_memory(config.run.keep_memory)
    torch.set_num_threads(config.run.num_threads)
    device = choose(config.run.device, place.local)
    tools, settings = load_tools(config, shard_size, device)
    job = open_job(config, settings, tools.source.rows, shard_size)
    bad = BadSamples(config.run.max_bad_fraction)
    num_done = 0
    # The first round leaves alone what others hold; the second waits for them and takes over what
    # they did not finish.
    for wait in (False, True):
        for shard in _order(job.num_shards, place):
            if job.done(shard) is None:
                num_done += _take(job, shard, tools, bad, place, wait)
    return num_done


def _order(num_shards: int, place: Place) -> Iterator[int]:
    """Every shard, beginning with those that other workers begin with last."""
    for turn in range(place.workers):
        yield from range((place.number + turn) % place.workers, num_shards, place.workers)


def _take(job: Job, shard: int, tools: Tools, bad: BadSamples, place: Place, wait: bool) -> bool:
    lock = job.folder.file(shard, ".lock")
    with locked(lock, wait=wait) as mine:
        if not mine or job.done(shard) is not None:
            return False
        seconds = process_shard(job, shard, tools, bad)
        # Whoever opened the lock's file before finds the shard done, and so does who makes it anew.
        lock.unlink(missing_ok=True)
    _note_time(job, shard, place, seconds)
    return True


def _note_time(job: Job, shard: int, place: Place, seconds: dict[str, float]) -> None:
    num_images = len(job.rows(shard))
    speed = num_images / seconds["total"]
    line = {
        "shard": shard,
        "worker": place.number,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "images": num_images,
        "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
    }
    with job.folder.timings.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")  # one short write: lines of workers do not mix
    log.info(
        "shard %d of %d: %d images, %.1f images/s", shard + 1, job.num_shards, num_images, speed
    )


def load_tools(
    config: CapfiltConfig, shard_size: int, device: torch.device
) -> tuple[Tools, dict[str, Any]]:
    """Models, source and processors, and all settings that their output depends on."""
    # Before weights are fetched: a wrong path is noticed at once.
    source = Source(registry.build("dataset", config.data.source.spec), config.output.images)
    models: dict[str, nn.Module] = {}
    for name in ("captioner", "filter"):
        if (component := getattr(config, name)) is not None:
            models[name] = (
                load(component, name, config.run.seed).to(device).eval().requires_grad_(False)
            )
    captioner = judge = None
    if config.captioner is not None:
        check_options(type(models["captioner"]), config.captioner.generate)
        captioner = CaptionWriter(models["captioner"], config.captioner.generate, config.run.seed)
    if config.filter is not None:
        judge = TextJudge(models["filter"], config.filter, config.data.batch_size)
    precision = Precision(config.run.precision, device)
    if config.run.prepack:
        for model in models.values():
            prepack(model, precision.dtype)
    tools = Tools(
        config,
        source,
        PrepareImages(config.data.image.spec, models),
        registry.build("processor", config.data.text.spec),
        captioner,
        judge,
        precision,
    )
    settings = {**config_settings(config, shard_size), **facts(models, source.rows, device)}
    return tools, settings


def load(component: ModelComponent, part: str, seed: int) -> nn.Module:
    """A model with its checkpoint; without one, with the released weights of its type.

    Where there are none either, its weights are random, by the seed, and a warning says so; with
    ``checkpoint: random`` they are meant to be.
    """
    seed_everything(seed, part)
    if component.checkpoint == "random":
        component = dataclasses.replace(component, checkpoint=None)
    elif component.checkpoint is None:
        try:
            released = cards.released_weights(component.name, component.type)
            component = dataclasses.replace(component, checkpoint=released)
        except CheckpointError:
            if cards.types(component.name):  # others bring their weights themselves
                log.warning(
                    "%s: no checkpoint is given and type %s of %s has none: its weights are random",
                    part,
                    component.type or cards.default_type(component.name),
                    component.name,
                )
    return zoo.build_model(component)
