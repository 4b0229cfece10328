"""Choosing texts by their scores, over records that are made up."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from lavis_lite import registry
from lavis_lite.projects.blip.capfilt.layout import DONE, JOB, RECORDS, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.table import TABLE, records_in, table_of, write_table
from lavis_lite.projects.blip.selection.config import (
    PoolConfig,
    SelectionConfig,
    SelectionRunConfig,
)
from lavis_lite.registry.component import Component
from lavis_lite.runners.benchmark.agreement import Difference

if TYPE_CHECKING:
    import pyarrow as pa

SHARD = 10_000
_WORDS = ("a", "the", "red", "green", "dog", "cat", "man", "tree", "on", "in", "by", "big", "new")
RULES: list[dict[str, Any]] = [
    {"score": "itm", "min": 0.3},
    {"score": "mix", "fraction": 0.5},
    {"duplicates": "images", "best": "mix"},
    {"most_per_text": 2, "best": "mix"},
]
FUSED = {"mix": {"fuse": "z", "weights": {"itm": 1.0, "clip": 1.0}}}


@registry.register("workload", "blip_select")
class Select:
    """The runner ``select`` over made-up records: threshold, fusion, share, duplicates, cap, best.

    Each image has a web text and two captions of about sixty letters, three scores of each text,
    and a hash. The baseline reads the same files and no more, all columns of them.

    Args:
        images: records.
        lines: read JSON lines, as a run writes them, rather than tables.
        workers: processes; 1 works in this one.
        device, precision: of no effect.
    """

    arithmetic = False
    unit = "images"
    baselines = ("reading alone",)

    def __init__(
        self,
        images: int = 1_000_000,
        lines: bool = False,
        workers: int = 1,
        *,
        device: torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        self.amount, self.lines, self.workers = images, lines, workers
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.folder = write_records(Path(self._files.name) / "run", images, lines)

    def contender(self, name: str) -> Callable[[], int]:
        """Ours returns how many texts it chose, the baseline how many there are."""
        return self._select if name == "ours" else self._read

    def _select(self) -> int:
        executor = {"executor": "process", "workers": self.workers} if self.workers > 1 else {}
        with tempfile.TemporaryDirectory() as folder:
            config = SelectionConfig(
                runner=Component("select", executor),
                data=PoolConfig(records=str(self.folder)),
                run=SelectionRunConfig(output_dir=folder),
                scores=FUSED,
                rules=RULES,
                keep={"best": 1, "by": "mix"},
            )
            summary = registry.build("runner", config.runner.spec, config=config).run()
        return int(summary["metrics"]["texts"])

    def _read(self) -> int:
        texts = 0
        for path in sorted((self.folder / SHARDS).glob(f"*{RECORDS if self.lines else TABLE}")):
            if self.lines:
                with path.open(encoding="utf-8") as file:
                    texts += sum(1 + len(json.loads(line)["synthetic"]) for line in file)
            else:
                import pyarrow.parquet as parquet

                texts += 3 * len(parquet.read_table(path, use_threads=False))
        return texts

    def differences(self, baseline: str, ours: int, theirs: int) -> list[Difference]:
        """Return nothing to compare: the baseline chooses nothing."""
        return []


def write_records(folder: Path, images: int, lines: bool) -> Path:
    """Write a finished run of made-up records, without the images.

    Args:
        folder: to write.
        images: records.
        lines: as JSON lines, else as tables alone.
    """
    shards = -(-images // SHARD)
    (folder / SHARDS).mkdir(parents=True)
    job = {
        "source": {"name": "scenes", "split": "web", "size": images},
        "num_shards": shards,
        "settings": {"filter.score": "itm"},
        "text_scores": ["clip", "sieve"],
        "image_scores": ["sha256"],
    }
    (folder / JOB).write_text(json.dumps(job), "utf-8")
    for shard in range(shards):
        base = folder / SHARDS / shard_name(shard)
        start = shard * SHARD
        number = min(SHARD, images - start)
        write_table(_made_up(start, number), f"{base}{TABLE}")
        if lines:
            with open(f"{base}{RECORDS}", "w", encoding="utf-8") as file:
                file.writelines(json.dumps(r) + "\n" for r in records_in(f"{base}{TABLE}"))
            Path(f"{base}{TABLE}").unlink()
        Path(f"{base}{DONE}").write_text(json.dumps({"records": number}), "utf-8")
    return folder


def _made_up(start: int, number: int) -> pa.Table:
    """A table of records; those of equal numbers are equal, one text in fifty is a common one."""
    import pyarrow as pa
    import pyarrow.compute as compute

    rng = numpy.random.default_rng(start)
    index = numpy.arange(start, start + number)
    image = numpy.where(index % 7 == 0, index - index % 50, index)
    names = pa.array(index).cast(pa.string())
    texts = [_texts(rng, names) for _ in range(3)]
    offsets = pa.array(numpy.arange(0, 2 * number + 1, 2, dtype=numpy.int32))
    pairs = numpy.arange(2 * number).reshape(2, number).T.ravel()  # both captions of an image

    def lists(first: pa.Array, second: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(offsets, pa.concat_arrays([first, second]).take(pairs))

    columns = {
        "key": compute.binary_join_element_wise(f"{start // SHARD:05d}", names, "/"),
        "index": pa.array(index),
        "image_id": names,
        "web_text": texts[0],
        "synthetic": lists(*texts[1:]),
        "image_score_sha256": compute.utf8_lpad(pa.array(image).cast(pa.string()), 64, "0"),
    }
    for suffix in ("", "_itm", "_clip", "_sieve"):
        own = [pa.array(rng.random(number).round(6)) for _ in range(3)]
        columns[f"web_score{suffix}"] = own[0]
        columns[f"synthetic_score{suffix}"] = lists(*own[1:])
    table = table_of([_record(place) for place in range(number)], "made up", score="itm")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table


def _texts(rng: numpy.random.Generator, names: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as compute

    words = pa.array(_WORDS)
    drawn = [words.take(pa.array(rng.integers(0, len(_WORDS), len(names)))) for _ in range(12)]
    said = compute.binary_join_element_wise(*drawn, names, " ")
    return compute.if_else(pa.array(rng.random(len(names)) < 0.02), "logo", said)


def _record(index: int) -> dict[str, Any]:
    own = {"web": 0.5, "synthetic": [0.5, 0.5]}
    return {
        "version": 2,
        "key": "",
        "index": index,
        "image": None,
        "image_id": "",
        "web_text": "",
        "synthetic": ["", ""],
        "sources": ["blip", "other"],
        "scores": own,
        "kept": {"web": True, "synthetic": [True, False]},
        "reason": {"web": "kept", "synthetic": ["kept", "below"]},
        "fields": {"url": f"http://example.org/{index}.jpg", "width": 640},
        "text_scores": {"itm": own, "clip": own, "sieve": own},
        "image_scores": {"sha256": ""},
    }
