"""A worker: loads the models once and takes shards until all of the job are done."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from lavis_lite import registry
from lavis_lite.distributed import choose
from lavis_lite.projects.blip.capfilt import names
from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter, check_options
from lavis_lite.projects.blip.capfilt.claims import locked
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.executors import Place
from lavis_lite.projects.blip.capfilt.filter import TextJudge
from lavis_lite.projects.blip.capfilt.job import Job, config_settings, facts, open_job
from lavis_lite.projects.blip.capfilt.loading import Models, load_scorers, modules_of
from lavis_lite.projects.blip.capfilt.score_config import CapfiltScoreConfig
from lavis_lite.projects.blip.capfilt.scoring import reads_files
from lavis_lite.projects.blip.capfilt.shard import BadSamples, Tools, process_shard
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source
from lavis_lite.projects.blip.capfilt.stored import keep_tokens
from lavis_lite.registry.component import ModelComponent
from lavis_lite.registry.plugins import load_plugin
from lavis_lite.runners.heap import keep_freed_memory
from lavis_lite.runners.precision import Precision

log = logging.getLogger(__name__)


class Task(NamedTuple):
    """A job, and the function that computes and publishes one of its shards (seconds by stage)."""

    job: Job
    process: Callable[[int], dict[str, float]]


def work(config: CapfiltConfig, shard_size: int, place: Place) -> int:
    """Work until every shard is done, by this worker or another; returns how many this one did.

    Raises:
        ConfigError: the folder holds a run with other models, settings or input.
        DataError: too many samples were bad.
    """

    def begin(device: torch.device) -> Task:
        tools, settings = load_tools(config, shard_size, device)
        job = open_job(config, settings, tools.source.rows, shard_size)
        bad = BadSamples(config.run.max_bad_fraction)
        return Task(job, lambda shard: process_shard(job, shard, tools, bad))

    return take_shards(config, place, begin)


def take_shards(
    config: CapfiltConfig | CapfiltScoreConfig,
    place: Place,
    begin: Callable[[torch.device], Task],
) -> int:
    """Work until every shard of a task is done; returns how many this worker did.

    Args:
        config: with the plug-ins, device and threads.
        place: of this worker.
        begin: loads the models onto a device and opens the job.
    """
    for plugin in config.plugins:
        load_plugin(plugin)
    keep_freed_memory(config.run.keep_memory)
    torch.set_num_threads(config.run.num_threads)
    task = begin(choose(config.run.device, place.local))
    num_done = 0
    # The first round leaves alone what others hold; the second waits for them and takes over what
    # they did not finish.
    for wait in (False, True):
        for shard in _order(task.job.num_shards, place):
            if task.job.done(shard) is None:
                num_done += _take(task, shard, place, wait)
    return num_done


def _order(num_shards: int, place: Place) -> Iterator[int]:
    """Every shard, beginning with those that other workers begin with last."""
    for turn in range(place.workers):
        yield from range((place.number + turn) % place.workers, num_shards, place.workers)


def _take(task: Task, shard: int, place: Place, wait: bool) -> bool:
    job = task.job
    lock = job.folder.file(shard, ".lock")
    with locked(lock, wait=wait) as mine:
        if not mine or job.done(shard) is not None:
            return False
        seconds = task.process(shard)
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
    precision = Precision(config.run.precision, device)
    models = Models(config.run, precision)
    named = names.captioners(config)
    several = isinstance(config.captioner, list)
    built = names.scorers(config.scorers)
    files = any(reads_files(registry.get("scorer", one.name)) for one in built.values())
    files |= any(is_shown_pictures(one) for one in named.values())
    # Before weights are fetched: a wrong path is noticed at once.
    rows = registry.build("dataset", config.data.source.spec)
    source = Source(rows, files or config.output.images)
    writers = {}
    for name, one in named.items():
        model = models.load(one, f"captioner {name}" if several else "captioner")
        check_options(type(model), one.generate)
        writers[name] = CaptionWriter(model, one.generate, config.run.seed)
    judge = None
    if config.filter is not None:
        model = models.load(config.filter, "filter")
        judge = TextJudge(model, config.filter, config.data.batch_size)
    scorers = load_scorers(built, models, config.run.seed, config.data.batch_size)
    stored = None
    if config.data.vision_tokens is not None:
        stored = keep_tokens(models.that_read_pixels(), source, config.data, precision)
    if config.run.prepack:
        models.prepack()
    tools = Tools(
        config,
        source,
        stored or PrepareImages(config.data.image.spec, models.that_read_pixels()),
        registry.build("processor", config.data.text.spec),
        writers,
        judge,
        precision,
        scorers,
        models.parts,
    )
    settings = {**config_settings(config, shard_size)}
    settings |= facts(models.by_part | modules_of(scorers), source.rows, device)
    return tools, settings


def is_shown_pictures(captioner: ModelComponent) -> bool:
    """Tell whether a captioner takes images as they are."""
    built = registry.entry("model", captioner.name).result
    return getattr(built, "reads_pictures", False)
