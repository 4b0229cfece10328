"""Scores for the records of a finished run: a worker's pass over its shards, exactly once.

Nothing of the run is computed again, and nothing of it is changed: a shard's scores are published
beside its records, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lavis_lite import registry
from lavis_lite.config import to_dict
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.io.paths import here
from lavis_lite.io.redaction import REDACTED
from lavis_lite.projects.blip.capfilt import names
from lavis_lite.projects.blip.capfilt.executors import Place
from lavis_lite.projects.blip.capfilt.job import (
    RECORDS,
    STATS,
    Job,
    begin_job,
    facts,
    scorer_settings,
)
from lavis_lite.projects.blip.capfilt.layout import SCORES, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.loading import Models, load_scorers, modules_of
from lavis_lite.projects.blip.capfilt.reading import finished_shards, read_job, read_lines
from lavis_lite.projects.blip.capfilt.records import EMPTY, REPEATED, Record, slots
from lavis_lite.projects.blip.capfilt.score_config import CapfiltScoreConfig
from lavis_lite.projects.blip.capfilt.scoring import (
    Images,
    NamedScorer,
    Readable,
    ShardScores,
    reads_files,
    reads_images,
    score_batch,
)
from lavis_lite.projects.blip.capfilt.shard import BadSamples, Clock, lines_of, publish_shard
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source
from lavis_lite.projects.blip.capfilt.stored import StoredTokens, batches_of, keep_tokens
from lavis_lite.projects.blip.capfilt.texts import records_hash
from lavis_lite.projects.blip.capfilt.worker import Task, take_shards
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.settings import Settings, flatten, named_in, without_effect


class ScoreTools(NamedTuple):
    """The tools of a worker for the scores of any shard; no source where no image is read."""

    config: CapfiltScoreConfig
    records: Path
    source: Source | None
    prepare: PrepareImages | StoredTokens
    text: Callable[[str], str]
    scorers: list[NamedScorer]
    parts: dict[int, str]
    precision: Precision


def score_work(config: CapfiltScoreConfig, shard_size: int, place: Place) -> int:
    """Work until every shard has its scores, by this worker or another; see ``worker.work``.

    Raises:
        ConfigError: the folder holds scores by other models or settings, or of other records.
        DataError: the run is not finished, or too many of its images cannot be read any more.
    """

    def begin(device: torch.device) -> Task:
        tools, settings = _load(config, device)
        run = read_job(tools.records)
        about = {
            "source": run["source"],
            "text_scores": names.score_names(config.scorers, "text"),
            "image_scores": names.score_names(config.scorers, "image"),
        }
        size = (run["num_rows"], shard_size)
        path = str(scores_folder(config))
        job = begin_job(path, settings, size, about, without_effect(config))
        bad = BadSamples(config.run.max_bad_fraction)
        return Task(job, lambda shard: process_scores(job, shard, tools, bad))

    return take_shards(config, place, begin)


def run_of(config: CapfiltScoreConfig) -> tuple[Path, dict[str, Any]]:
    """The folder of the run that gets scores, and its job.

    Raises:
        DataError: it is no run, or not finished.
    """
    folder = Path(here(config.records))
    job = read_job(folder)
    finished_shards(folder, job["num_shards"], unfinished_ok=False)
    return folder, job


def scores_folder(config: CapfiltScoreConfig) -> Path:
    """The folder of the scores: beside the records, with the name of the output folder."""
    return Path(here(config.records)) / SCORES / Path(here(config.run.output_dir)).name


def score_settings(config: CapfiltScoreConfig) -> Settings:
    """Every setting that decides the scores, by dotted key."""
    tree = to_dict(config)
    tree["scorers"] = scorer_settings(config.scorers)
    if config.data.vision_tokens is None:  # as releases wrote it that kept no tokens
        del tree["data"]["vision_tokens"]
    ignored = without_effect(config)
    flat = {key: value for key, value in flatten(tree) if not named_in(key, ignored)}
    flat["threads of a worker"] = config.run.num_threads  # sums depend on it
    return json.loads(json.dumps(flat, default=str))


def _load(config: CapfiltScoreConfig, device: torch.device) -> tuple[ScoreTools, Settings]:
    folder, job = run_of(config)
    built = names.scorers(config.scorers)
    classes: list[Any] = [registry.get("scorer", one.name) for one in built.values()]
    source = None
    if any(map(reads_images, classes)):  # before weights are fetched: a wrong path is noticed
        source = Source(_dataset(config, job), any(map(reads_files, classes)))
    precision = Precision(config.run.precision, device)
    models = Models(config.run, precision)
    scorers = load_scorers(built, models, config.run.seed, config.data.batch_size)
    looked_at = models.that_read_pixels() if source is not None else {}
    stored = None
    if config.data.vision_tokens is not None and source is not None:
        stored = keep_tokens(looked_at, source, config.data, precision)
    if config.run.prepack:
        models.prepack()
    tools = ScoreTools(
        config,
        folder,
        source,
        stored or PrepareImages(config.data.image.spec, looked_at),
        registry.build("processor", config.data.text.spec),
        scorers,
        models.parts,
        precision,
    )
    settings = score_settings(config)
    rows = source.rows if source is not None else None
    settings |= facts(models.by_part | modules_of(scorers), rows, device)
    settings["records of"] = job["fingerprint"]
    return tools, settings


def _dataset(config: CapfiltScoreConfig, job: dict[str, Any]) -> Any:
    if config.data.source is not None:
        return registry.build("dataset", config.data.source.spec)
    if REDACTED in json.dumps(job["source"]):
        raise ConfigError(
            f"data.source: {config.records}: its source needs a secret that was taken out when it "
            "was written; give data.source as the run had it"
        )
    return registry.build("dataset", job["source"])


def process_scores(job: Job, shard: int, tools: ScoreTools, bad: BadSamples) -> dict[str, float]:
    """Compute and publish the scores of a shard; the caller holds its lock.

    Returns:
        Seconds by stage.

    Raises:
        DataError: the source has other rows than the records, or too many cannot be read.
    """
    job.folder.clean(shard)
    bad.begin(shard)
    clock = Clock()
    whole = records_hash(tools.records, shard)
    path = tools.records / SHARDS / f"{shard_name(shard)}{RECORDS}"
    # Scores that the records have already are left where they are.
    records = [{**one, "text_scores": {}, "image_scores": {}} for one in read_lines(path)]
    scores = ShardScores(tools.scorers, shard)
    with torch.no_grad(), tools.precision.autocast():
        for batch, images in _batches(records, tools, bad, clock):
            with clock.time("score"):
                scores.add(score_batch(batch, _readable(batch, tools), images, tools.text))
        with clock.time("score"):
            read = {record["index"] for record in scores.records}
            for record in records:
                if record["index"] not in read:
                    scores.add_unread(record)
            stats = {"images": len(records), "scores": scores.finish()}
    with clock.time("write"):
        rows = (
            {name: one[name] for name in ("key", "index", "text_scores", "image_scores")}
            for one in records
        )
        contents = {
            RECORDS: lines_of(rows),
            STATS: [json.dumps(stats, indent=1, sort_keys=True) + "\n"],
        }
        about = {"records": len(records), "records_sha256": whole}
        publish_shard(job, shard, contents, about)
    return {**clock.seconds, "total": clock.total, "cpu": clock.cpu}


def _batches(
    records: list[Record], tools: ScoreTools, bad: BadSamples, clock: Clock
) -> Iterator[tuple[list[Record], Images]]:
    """Records a batch at a time with their images, read only where a scorer looks at them."""
    size = tools.config.data.batch_size
    device = tools.precision.device
    if tools.source is None:
        for start in range(0, len(records), size):
            yield records[start : start + size], Images({}, tools.parts, device)
        return
    data = batches_of(tools.source, tools.prepare, tools.config.data, bad)
    by_index = {record["index"]: record for record in records}
    for batch in clock.each("read", data.batches(list(by_index))):
        chosen = [by_index[index] for index in batch["index"]]
        for record, key in zip(chosen, batch["key"], strict=True):
            if record["key"] != key:
                raise DataError(
                    f"{tools.records}: row {record['index']} of the source is {key!r} now, the "
                    f"record of it is of {record['key']!r}; give data.source as the run had it"
                )
        files = [own["file"] for own in batch["record"] if tools.source.keep_bytes]
        pixels = tools.prepare.split(batch["image"])
        yield chosen, Images(pixels, tools.parts, device, files, tools.source.decode)


def _readable(records: list[Record], tools: ScoreTools) -> list[Readable]:
    """The texts that the run could judge: neither empty nor there before."""
    return [
        Readable(row, slot, text)
        for row, record in enumerate(records)
        for slot in slots(record)
        if slot.reason not in (EMPTY, REPEATED) and (text := tools.text(slot.text)).strip()
    ]
