"""Names of files that are no UTF-8 survive reading, tables, records, quarantine and predictions."""

from __future__ import annotations

import json
import os

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.image_processors import BlipImageEval
from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.runners.run_folder import read_json, write_json

NAMES = [os.fsdecode(name) for name in (b"caf\xe8.png", b"caf\xe9.png")]
PROCESSORS = Processors(BlipImageEval(image_size=4), lambda text, rng=None: text)


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(photos / name)
    return photos


def opened(kind, path, **arguments):
    return registry.build("dataset", {"name": kind, "path": str(path), **arguments})


def images(dataset):
    return [os.path.basename(row["image"]) for row in dataset]


def read_all(dataset, quarantine=None):
    data = EvalData(dataset, PROCESSORS, batch_size=8, quarantine=quarantine)
    return [image_id for batch in data.batches() for image_id in batch["image_id"].tolist()]


def test_they_are_read_from_a_folder_and_are_different_images(folder):
    dataset = opened("folder", folder)
    assert images(dataset) == NAMES
    assert len(set(read_all(dataset))) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
@pytest.mark.parametrize("escaped", [False, True])
def test_they_are_read_from_tables_as_bytes_and_as_escapes(folder, kind, escaped):
    rows = [{"image": name, "caption": "x"} for name in NAMES]
    if kind == "csv":
        text = "".join(["image,caption\n", *(f"{name},x\n" for name in NAMES)])
    else:
        lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
        text = "\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]"
    (folder / f"x.{kind}").write_text(text, encoding="utf-8", errors="surrogateescape")
    dataset = opened(kind, folder / f"x.{kind}")
    assert images(dataset) == NAMES
    assert len(read_all(dataset)) == 2


def test_the_quarantine_names_them_and_is_read_again(folder, tmp_path):
    (folder / NAMES[0]).write_bytes(b"no image")
    quarantine = Quarantine(str(tmp_path / "q.jsonl"), max_bad_fraction=1)
    rows = opened("folder", folder)
    bad = {"dataset": "x", "index": 0, "key": rows[0]["image"], "reason": f"missing: {NAMES[0]}"}
    quarantine.add(bad)
    (line,) = (tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == bad
    assert Quarantine(str(tmp_path / "q.jsonl")).total == 1


def test_files_of_a_run_hold_them(tmp_path):
    write_json(tmp_path / "x.json", {"image_id": NAMES[0]})
    assert read_json(tmp_path / "x.json") == {"image_id": NAMES[0]}


def test_records_of_a_bootstrapping_run_lead_back_to_them(folder, tmp_path):
    record = {
        **{"key": "k", "index": 0, "image": str(folder / NAMES[0]), "image_id": NAMES[0]},
        **{"web_text": "web", "synthetic": [], "fields": {}},
        **{"scores": {"web": None, "synthetic": []}, "kept": {"web": True, "synthetic": []}},
    }
    run = tmp_path / "run"
    (run / "shards").mkdir(parents=True)
    (run / "job.json").write_text(json.dumps({"source": {"name": "scenes"}, "num_shards": 1}))
    (run / "shards/shard-000000.jsonl").write_bytes(
        f"{json.dumps(record, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")
    )
    (run / "shards/shard-000000.done").write_text("{}")
    dataset = opened("bootstrapped", run)
    assert images(dataset) == NAMES[:1]
    assert len(read_all(dataset)) == 1


def test_halves_of_characters_that_are_no_bytes_become_a_mark_as_before():
    text = r'["\ud83d", "caf\udce9", "\ude00"]'
    assert parse_json(text) == ["\ufffd", "caf\ufffd", "\ufffd"]
    assert parse_json(text, keep_bytes=True) == ["\ufffd", "caf\udce9", "\ufffd"]
