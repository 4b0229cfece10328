"""The unit of work: one shard, from rows to files that are whole or not there.

Its bytes are a function of the job alone: not of who works on it, when, or beside whom.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lavis_lite.errors import DataError
from lavis_lite.io.files import publish, sha256_of
from lavis_lite.projects.blip.capfilt import job as jobs
from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.describing import describe, records_of
from lavis_lite.projects.blip.capfilt.filter import Pair, TextJudge
from lavis_lite.projects.blip.capfilt.names import is_plural
from lavis_lite.projects.blip.capfilt.records import Record, decide, readable_slots
from lavis_lite.projects.blip.capfilt.scoring import (
    Images,
    NamedScorer,
    Readable,
    ShardScores,
    score_batch,
)
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source
from lavis_lite.projects.blip.capfilt.stats import Stats, count
from lavis_lite.projects.blip.capfilt.stored import StoredTokens, batches_of
from lavis_lite.projects.blip.capfilt.table import TABLE, table_of, write_table
from lavis_lite.projects.blip.capfilt.tars import Spool, write_tar
from lavis_lite.runners.precision import Precision

log = logging.getLogger(__name__)
_ENOUGH_TO_JUDGE = 100


class Tools(NamedTuple):
    """The tools of a worker for any shard; captioners, filter and scorers may be missing.

    ``parts`` has the part of the run whose pixels a model reads, by the model's ``id``.
    """

    config: CapfiltConfig
    source: Source
    prepare: PrepareImages | StoredTokens
    text: Callable[[str], str]
    captioners: Mapping[str, CaptionWriter]
    filter: TextJudge | None
    precision: Precision
    scorers: Sequence[NamedScorer]
    parts: Mapping[int, str]

    def images(self, batch: dict[str, Any], chosen: list[int]) -> Images:
        """Return some images of a batch as models and scorers read them."""
        files = [batch["record"][place]["file"] for place in chosen if self.source.keep_bytes]
        pixels = self.prepare.split(batch["image"][chosen])
        return Images(pixels, self.parts, self.precision.device, files, self.source.decode)


class BadSamples:
    """Samples that are set aside: those of the shard at hand, and the rate of all read so far."""

    def __init__(self, max_bad_fraction: float) -> None:
        self.max_bad_fraction = max_bad_fraction
        self.records: list[Record] = []
        self.reasons: Counter[str] = Counter()
        self.num_read = 0
        self._shard = 0

    def begin(self, shard: int) -> None:
        """Forget the records of the last shard; the rate goes on."""
        self.records, self._shard = [], shard

    def add(self, record: Record) -> None:
        """Set a sample aside; ``record`` has ``key``, ``index`` and ``reason``.

        With ``captioner``, only that captioner's text is missing.
        """
        names = ("key", "index", "reason", "captioner")
        kept = {name: record[name] for name in names if name in record}
        self.records.append({"shard": self._shard, **kept})
        self.reasons[record["reason"].split(":")[0]] += 1
        if sum(self.reasons.values()) == 1:
            log.warning(
                "first sample set aside: %s (%s); all are listed beside their shards",
                record["key"],
                record["reason"],
            )

    def seen(self, num_samples: int) -> None:
        """Count samples read, bad ones included.

        Raises:
            DataError: too many of them were bad.
        """
        self.num_read += num_samples
        num_bad = sum(self.reasons.values())
        if self.num_read >= _ENOUGH_TO_JUDGE and num_bad > self.max_bad_fraction * self.num_read:
            reasons = ", ".join(f"{reason} {n}" for reason, n in self.reasons.most_common())
            hint = "; to caption samples without text, set data.without_text: caption"
            raise DataError(
                f"{num_bad} of {self.num_read} samples were set aside, more than "
                f"run.max_bad_fraction={self.max_bad_fraction:g}: {reasons}"
                + (hint if "empty text" in self.reasons else "")
            )


def process_shard(job: jobs.Job, shard: int, tools: Tools, bad: BadSamples) -> dict[str, float]:
    """Compute and publish a shard; the caller holds its lock. Returns seconds by stage.

    Raises:
        DataError: too many samples were bad.
    """
    job.folder.clean(shard)
    bad.begin(shard)
    clock = Clock()
    with ExitStack() as stack:
        spool = None
        if tools.config.output.images:
            path = temporary(job.folder.file(shard, ".spool"))
            stack.callback(path.unlink, missing_ok=True)
            spool = Spool(stack.enter_context(path.open("w+b")))
        records, scores = _compute(job.rows(shard), shard, tools, bad, clock, spool)
        with clock.time("write"):
            decide(records, tools.config.filter)
            if tools.config.filter is not None and is_plural(tools.config):
                for record in records:
                    record["text_scores"][tools.config.filter.score] = record["scores"]
            _publish(job, shard, tools.config, records, bad.records, spool, scores)
    return {**clock.seconds, "total": clock.total, "cpu": clock.cpu}


def _compute(
    rows: range, shard: int, tools: Tools, bad: BadSamples, clock: Clock, spool: Spool | None
) -> tuple[list[Record], Stats]:
    """The records of a shard, and the counts of what the scorers gave."""
    data = batches_of(tools.source, tools.prepare, tools.config.data, bad)
    records: list[Record] = []
    keys: set[str] = set()
    scores = ShardScores(tools.scorers, shard)
    several = isinstance(tools.config.captioner, list)
    for batch in clock.each("read", data.batches(rows)):
        chosen = _usable(batch, tools, bad, keys)
        if not chosen:
            continue
        images = tools.images(batch, chosen)
        chosen_keys = [batch["key"][place] for place in chosen]
        with torch.no_grad(), tools.precision.autocast():
            with clock.time("caption") if tools.captioners else contextlib.nullcontext():
                described = describe(tools.captioners, images, chosen_keys, several)
            made, kept = records_of(batch, chosen, described, is_plural(tools.config), bad.add)
            bad.seen(0)
            if len(kept) < len(chosen):
                images = images.choose(kept)
            with clock.time("filter"):
                readable = _judge(made, images, tools)
            if tools.scorers:
                with clock.time("score"):
                    scores.add(score_batch(made, readable, images, tools.text))
        records += made
        if spool is not None:
            for row in kept:
                place = chosen[row]
                spool.put(batch["index"][place], batch["record"][place]["file"])
    with clock.time("score") if tools.scorers else contextlib.nullcontext():
        return records, scores.finish()


def _usable(batch: dict[str, Any], tools: Tools, bad: BadSamples, keys: set[str]) -> list[int]:
    """Places in the batch of samples with a text and a key of their own; others are set aside."""
    places = []
    for place, (index, key) in enumerate(zip(batch["index"], batch["key"], strict=True)):
        reason = None
        if key in keys:
            reason = "key was there before in this shard"
        elif tools.config.data.without_text == "quarantine":
            reason = None if tools.text(batch["text_input"][place]).strip() else "empty text"
        keys.add(key)
        if reason is None:
            places.append(place)
        else:
            bad.add({"key": key, "index": index, "reason": reason})
    bad.seen(0)
    return places


def _judge(records: list[Record], images: Images, tools: Tools) -> list[Readable]:
    """Let the filter score all texts that can be judged, and return those."""
    readable = [
        Readable(row, slot, text)
        for row, record in enumerate(records)
        for slot, text in readable_slots(record, tools.text)
    ]
    if tools.filter is not None and readable:
        pairs = [Pair(row, text) for row, _, text in readable]
        scores = tools.filter.score_tokens(images.tokens(tools.filter.model), pairs)
        for one, score in zip(readable, scores, strict=True):
            one.slot.judge(score)
    return readable


def _publish(
    job: jobs.Job,
    shard: int,
    config: CapfiltConfig,
    records: list[Record],
    bad: list[Record],
    spool: Spool | None,
    scores: Stats,
) -> None:
    """Write all files of a shard: records, what was set aside, counts, and images."""
    score = config.filter.score if config.filter else "itm"
    bad = sorted(bad, key=lambda one: one["index"])
    stats = count(len(job.rows(shard)), bad, records, score, config.data.label)
    if scores:
        stats["scores"] = scores
    contents = {
        jobs.RECORDS: lines_of(records),
        jobs.QUARANTINE: lines_of(bad),
        jobs.STATS: [json.dumps(stats, indent=1, sort_keys=True) + "\n"],
    }
    others = {}
    if spool is not None:
        others[jobs.IMAGES] = temporary(job.folder.file(shard, jobs.IMAGES))
        write_tar(others[jobs.IMAGES], records, spool)
    if config.output.table:
        _publish_table(job, shard, config, records)
    publish_shard(job, shard, contents, {"records": len(records)}, others)


def publish_shard(
    job: jobs.Job,
    shard: int,
    contents: Mapping[str, Iterable[str]],
    about: Mapping[str, Any],
    others: Mapping[str, Path] | None = None,
) -> None:
    """Write all files under temporary names, give them their own, and the mark last.

    Args:
        job: of the shard.
        shard: its number.
        contents: suffix -> lines of a file.
        about: what the mark says besides the files.
        others: suffix -> a temporary file that is written already.
    """
    files = {}
    for suffix, lines in contents.items():
        path = temporary(job.folder.file(shard, suffix))
        # Names of files that are no UTF-8 are escaped, and read back as they were.
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
        files[suffix] = path
    note = {
        "shard": shard,
        "fingerprint": job.fingerprint,
        "rows": len(job.rows(shard)),
        **about,
        "files": {},
    }
    for suffix, path in {**files, **(others or {})}.items():
        name = job.folder.file(shard, suffix).name
        note["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        publish(path, job.folder.file(shard, suffix))
    mark = temporary(job.folder.file(shard, jobs.DONE))
    mark.write_text(json.dumps(note, indent=1, sort_keys=True) + "\n", "utf-8")
    publish(mark, job.folder.file(shard, jobs.DONE))


def _publish_table(job: jobs.Job, shard: int, config: CapfiltConfig, records: list[Record]) -> None:
    """Write the records as a table too; the mark names it not, since it may be written anew."""
    lines, path = job.folder.file(shard, jobs.RECORDS), job.folder.file(shard, TABLE)
    kind = config.filter.score if config.filter else None
    digest = hashlib.sha256()
    for line in lines_of(records):
        digest.update(line.encode("utf-8", "backslashreplace"))
    table = table_of(records, lines, score=kind, sha256=digest.hexdigest())
    write_table(table, temporary(path))
    publish(temporary(path), path)


def lines_of(rows: Iterable[Record]) -> Iterator[str]:
    """Yield rows as JSON lines."""
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def temporary(path: Path) -> Path:
    """A name that only this process uses; whoever holds the shard's lock next removes the file."""
    return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


class Clock:
    """Seconds spent by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin, self._begin_cpu = time.perf_counter(), time.process_time()

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begin

    @property
    def cpu(self) -> float:
        """CPU seconds of this process since the beginning."""
        return time.process_time() - self._begin_cpu

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count what happens inside as ``stage``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin

    def each(self, stage: str, items: Iterator[Any]) -> Iterator[Any]:
        """The items; waiting for them counts as ``stage``."""
        while True:
            with self.time(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
