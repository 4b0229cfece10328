"""CapFilt's shards: whatever the sizes and the bad rows, each key is published exactly once."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lavis_lite import config as configs
from lavis_lite import runners
from lavis_lite.projects.blip.capfilt.executors import Place
from lavis_lite.projects.blip.capfilt.job import Folder, Job
from lavis_lite.projects.blip.capfilt.worker import _order

TOY = Path(__file__).parents[1] / "projects" / "blip" / "capfilt" / "toy_capfilt.py"


@given(st.integers(1, 500), st.integers(1, 60))
def test_shards_cover_every_row_once_in_order(rows: int, shard_size: int) -> None:
    job = Job(Folder("nowhere"), "", rows, shard_size)
    covered = [row for shard in range(job.num_shards) for row in job.rows(shard)]
    assert covered == list(range(rows))
    assert all(len(job.rows(shard)) == shard_size for shard in range(job.num_shards - 1))


@given(st.integers(1, 40), st.integers(1, 9))
def test_every_worker_comes_to_every_shard_and_begins_with_its_own(
    shards: int, workers: int
) -> None:
    orders = [list(_order(shards, Place(number, workers))) for number in range(workers)]
    assert all(sorted(order) == list(range(shards)) for order in orders)
    firsts = [order[0] for order in orders[:shards]]
    assert len(set(firsts)) == len(firsts)


def run(folder: str, rows: dict[str, Any], shard_size: int, batch_size: int) -> Path:
    tree = {
        "plugins": [str(TOY)],
        "runner": {"name": "capfilt", "shard_size": shard_size},
        "captioner": {"name": "toy_captioner"},
        "filter": {"name": "toy_filter"},
        "data": {"source": {"name": "toy_pairs", **rows}, "batch_size": batch_size},
        "run": {"output_dir": folder, "device": "cpu", "report": None, "max_bad_fraction": 1.0},
    }
    path = Path(folder) / "run.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    runners.run(configs.load_and_bind(path))
    return Path(folder)


@given(
    size=st.integers(1, 20),
    shard_size=st.integers(1, 12),
    batch_size=st.integers(1, 6),
    bad=st.lists(st.integers(0, 19), max_size=5),
    silent=st.lists(st.integers(0, 19), max_size=3),
)
@settings(max_examples=8)
def test_each_sample_is_published_or_set_aside_exactly_once(
    size: int, shard_size: int, batch_size: int, bad: list[int], silent: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = run(folder, {"size": size, "broken": bad, "silent": silent}, shard_size, batch_size)
        files = sorted(out.glob("shards/shard-??????.jsonl"))
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        aside = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    published = [record["key"] for record in records]
    # A row without a text is set aside too: what there is to filter is its text.
    left_out = {f"pair-{n}" for n in {*bad, *silent} if n < size}
    assert sorted(published) == sorted({f"pair-{n}" for n in range(size)} - left_out)
    assert sorted(record["key"] for record in aside) == sorted(left_out)
    assert [record["index"] for record in records] == sorted(r["index"] for r in records)
