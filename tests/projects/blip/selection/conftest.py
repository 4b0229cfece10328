"""A run's records written by hand, and selections of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from lavis_lite import config as configs
from lavis_lite import runners
from lavis_lite.data.seeding import stable_hash

WORDS = ("red", "green", "blue", "cyan", "grey")


def made_records(number: int, seed: int = 0) -> list[dict[str, Any]]:
    """Records of version 2: 0 to 2 captions, three scores (one with gaps), hashes, a truth."""
    rng = numpy.random.default_rng(seed)
    records = []
    for index in range(number):
        captions = int(rng.integers(0, 3))
        texts = [f"a {rng.choice(WORDS)} thing {rng.integers(4)}" for _ in range(1 + captions)]
        if index % 17 == 0:
            texts[0] = " "
        scores = {
            name: [round(float(value), digits) for value in rng.random(1 + captions)]
            for name, digits in (("itm", 2), ("clip", 6), ("sieve", 6))
        }
        gaps = [None if index % 5 == 0 else value for value in scores["sieve"]]
        scores["sieve"] = gaps  # type: ignore[assignment]
        records.append(
            {
                "version": 2,
                "key": f"k{index}",
                "index": index,
                "image": None,
                "image_id": f"k{index}",
                "web_text": texts[0],
                "synthetic": texts[1:],
                "sources": ["blip", "other"][:captions],
                "scores": {"web": scores["itm"][0], "synthetic": scores["itm"][1:]},
                "kept": {
                    "web": scores["itm"][0] > 0.5,
                    "synthetic": [s > 0.5 for s in scores["itm"][1:]],
                },
                "reason": {"web": "", "synthetic": [""] * captions},
                "fields": {"kind": f"kind{index % 3}", "truth": bool(scores["clip"][0] > 0.4)},
                "text_scores": {
                    name: {"web": own[0], "synthetic": own[1:]} for name, own in scores.items()
                },
                "image_scores": {
                    "nsfw": round(float(rng.random()), 3),
                    "sha256": f"{stable_hash(index // 2 if index % 4 < 2 else index):064x}",
                    "phash": f"{1 << (index % 20):016x}",
                },
            }
        )
    return records


def write_run(folder: Path, records: list[dict[str, Any]], shard_size: int = 20) -> Path:
    """A finished run with these records, over the embedded scenes."""
    (folder / "shards").mkdir(parents=True)
    shards = [records[n : n + shard_size] for n in range(0, len(records), shard_size)]
    job = {
        "source": {"name": "scenes", "split": "web", "size": max(1, len(records))},
        "num_shards": len(shards),
        "settings": {},
        "text_scores": list(records[0].get("text_scores", ())),
        "image_scores": list(records[0].get("image_scores", ())),
    }
    (folder / "job.json").write_text(json.dumps(job))
    for number, own in enumerate(shards):
        base = folder / "shards" / f"shard-{number:06d}"
        data = "".join(json.dumps(r) + "\n" for r in own).encode()
        base.with_suffix(".jsonl").write_bytes(data)
        note = {"records": len(own), "files": {f"{base.name}.jsonl": {"size": len(data)}}}
        base.with_suffix(".done").write_text(json.dumps(note))
    return folder


@pytest.fixture
def some() -> list[dict[str, Any]]:
    """90 records."""
    return made_records(90)


@pytest.fixture
def run(tmp_path: Path, some: list[dict[str, Any]]) -> Path:
    """A run of 90 records in 5 shards."""
    return write_run(tmp_path / "run", some)


@pytest.fixture
def config_of(run: Path, tmp_path: Path) -> Callable[..., Any]:
    """``config_of(rules, name, ...)`` -> the config of a selection into a folder of that name."""

    def build(rules: list[dict[str, Any]], name: str = "out", **values: Any) -> Any:
        defaults = {
            "data.records": str(run),
            "data.label": None,
            "data.right": [],
            "rules": rules,
            "run.output_dir": str(tmp_path / name),
            "run.report": None,
            "runner.block_size": 40,
        }
        return configs.load_and_bind("blip/select", values={**defaults, **values})

    return build


@pytest.fixture
def select(config_of: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """``select(rules, name, **config keys)`` runs a selection and returns its folder."""

    def build(rules: list[dict[str, Any]], name: str = "out", **values: Any) -> Path:
        runners.run(config_of(rules, name, **values))
        return tmp_path / name

    return build


@pytest.fixture
def write() -> Callable[..., Path]:
    """``write(folder, records, shard size)`` -> a finished run with these records."""
    return write_run


@pytest.fixture
def make() -> Callable[..., list[dict[str, Any]]]:
    """``make(number, seed)`` -> records."""
    return made_records
