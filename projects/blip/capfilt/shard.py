"""The unit of work: one shard, from rows to files that are whole or not there.

Its bytes are a function of the job alone: not of who works on it, when, or beside whom.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.errors import DataError
from lavis_lite.io.files import publish, sha256_of
from lavis_lite.metrics.counts import not_finite
from lavis_lite.projects.blip.capfilt import job as jobs
from lavis_lite.projects.blip.capfilt.captioner import CaptionWriter
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.filter import Pair, TextJudge
from lavis_lite.projects.blip.capfilt.records import (
    Record,
    Slot,
    decide,
    new_record,
    readable_slots,
)
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source, as_it_is
from lavis_lite.projects.blip.capfilt.stats import count
from lavis_lite.projects.blip.capfilt.table import TABLE, table_of, write_table
from lavis_lite.projects.blip.capfilt.tars import Spool, write_tar
from lavis_lite.runners.precision import Precision

log = logging.getLogger(__name__)
_ENOUGH_TO_JUDGE = 100


class Tools(NamedTuple):
    """The tools of a worker for any shard; captioner or filter may be missing."""

    config: CapfiltConfig
    source: Source
    prepare: PrepareImages
    text: Callable[[str], str]
    captioner: CaptionWriter | None
    filter: TextJudge | None
    precision: Precision


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
        """Set a sample aside; ``record`` has ``key``, ``index`` and ``reason``."""
        kept = {name: record[name] for name in ("key", "index", "reason")}
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
        records = _compute(job.rows(shard), tools, bad, clock, spool)
        with clock.time("write"):
            decide(records, tools.config.filter)
            _publish(job, shard, tools.config, records, bad.records, spool)
    return {**clock.seconds, "total": clock.total, "cpu": clock.cpu}


def _compute(
    rows: range, tools: Tools, bad: BadSamples, clock: Clock, spool: Spool | None
) -> list[Record]:
    data = EvalData(
        tools.source,
        Processors(image=tools.prepare, text=as_it_is),
        batch_size=tools.config.data.batch_size,
        num_workers=tools.config.data.num_workers,
        quarantine=bad,  # type: ignore[arg-type]
    )
    records: list[Record] = []
    keys: set[str] = set()
    for batch in clock.each("read", data.batches(rows)):
        chosen = _usable(batch, tools, bad, keys)
        if not chosen:
            continue
        images = tools.prepare.split(batch["image"][chosen])
        chosen_keys = [batch["key"][place] for place in chosen]
        texts: list[list[str] | None] = [[] for _ in chosen]
        with torch.no_grad(), tools.precision.autocast():
            if tools.captioner is not None:
                with clock.time("caption"):
                    pixels = images["captioner"].to(tools.precision.device)
                    texts = tools.captioner.write(pixels, chosen_keys)
            described = [place for place, own in enumerate(texts) if own is not None]
            for place, key in enumerate(chosen_keys):
                if place not in described:
                    reason = not_finite("the logits of a text")
                    bad.add({"key": key, "index": batch["index"][chosen[place]], "reason": reason})
            bad.seen(0)
            made = [
                new_record(batch["index"][p], key, batch["text_input"][p], said, own(batch, p))
                for p, key, said in zip(chosen, chosen_keys, texts, strict=True)
                if said is not None
            ]
            chosen = [chosen[place] for place in described]
            with clock.time("filter"):
                shown = images.get("filter")
                if shown is not None and len(made) < len(chosen_keys):
                    shown = shown[described]
                _judge(made, shown, tools)
        records += made
        if spool is not None:
            for place in chosen:
                spool.put(batch["index"][place], batch["record"][place]["file"])
    return records


def own(batch: dict[str, Any], place: int) -> Record:
    """Return the fields of a sample in the source besides image and text."""
    return batch["record"][place]


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


def _judge(records: list[Record], images: Tensor, tools: Tools) -> None:
    pairs: list[Pair] = []
    judged: list[Slot] = []
    for row, record in enumerate(records):
        for slot, text in readable_slots(record, tools.text):
            pairs.append(Pair(row, text))
            judged.append(slot)
    if tools.filter is None:
        return
    scores = tools.filter.score(images.to(tools.precision.device), pairs)
    for slot, score in zip(judged, scores, strict=True):
        slot.judge(score)


def _publish(
    job: jobs.Job,
    shard: int,
    config: CapfiltConfig,
    records: list[Record],
    bad: list[Record],
    spool: Spool | None,
) -> None:
    """Write all files under temporary names, give them their own, and the mark last."""
    score = config.filter.score if config.filter else "itm"
    bad = sorted(bad, key=lambda one: one["index"])
    stats = count(len(job.rows(shard)), bad, records, score, config.data.label)
    contents: dict[str, Any] = {
        jobs.RECORDS: _lines(records),
        jobs.QUARANTINE: _lines(bad),
        jobs.STATS: [json.dumps(stats, indent=1, sort_keys=True) + "\n"],
    }
    files = {}
    for suffix, lines in contents.items():
        path = temporary(job.folder.file(shard, suffix))
        # Names of files that are no UTF-8 are escaped, and read back as they were.
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
        files[suffix] = path
    if spool is not None:
        files[jobs.IMAGES] = temporary(job.folder.file(shard, jobs.IMAGES))
        write_tar(files[jobs.IMAGES], records, spool)
    note = {
        "shard": shard,
        "fingerprint": job.fingerprint,
        "rows": len(job.rows(shard)),
        "records": len(records),
        "files": {},
    }
    for suffix, path in files.items():
        name = job.folder.file(shard, suffix).name
        note["files"][name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
        publish(path, job.folder.file(shard, suffix))
    if config.output.table:
        _publish_table(job, shard, config, records)
    mark = temporary(job.folder.file(shard, jobs.DONE))
    mark.write_text(json.dumps(note, indent=1, sort_keys=True) + "\n", "utf-8")
    publish(mark, job.folder.file(shard, jobs.DONE))


def _publish_table(job: jobs.Job, shard: int, config: CapfiltConfig, records: list[Record]) -> None:
    """Write the records as a table too; the mark names it not, since it may be written anew."""
    lines, path = job.folder.file(shard, jobs.RECORDS), job.folder.file(shard, TABLE)
    kind = config.filter.score if config.filter else None
    table = table_of(records, lines, score=kind, sha256=sha256_of(lines))
    write_table(table, temporary(path))
    publish(temporary(path), path)


def _lines(rows: list[Record]) -> Iterator[str]:
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
