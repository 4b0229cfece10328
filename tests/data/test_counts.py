"""The account of every registered dataset: what comes in is used, set aside or left out by name."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.counts import Counts, accounts
from lavis_lite.data.loader import EvalData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.reader import Processors
from lavis_lite.errors import DataError

BLANK = torch.zeros(3, 2, 2)
PROCESSORS = Processors(image=lambda image, rng: BLANK, text=lambda text, rng=None: text)


class Fed(NamedTuple):
    """A source on disk: how to open it, and how many entries of each fate it has."""

    arguments: dict[str, Any]
    good: int
    bad: int
    excluded: int


SOURCES: dict[str, Callable[[Path], Fed]] = {}


def source(*names: str) -> Callable[[Any], Any]:
    def register(write: Any) -> Any:
        for name in names:
            SOURCES[name] = lambda folder, name=name: write(folder, name)
        return write

    return register


def pictures(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return str(folder)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


def written(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def pair(split: str = "train", **fields: Any) -> dict[str, Any]:
    return {"image": "a.png", "caption": "x", "split": split, **fields}


@source("json", "jsonl", "csv", "parquet")
def annotation_file(folder: Path, name: str) -> Fed:
    pictures(folder, "a.png")
    rows: list[Any] = [pair(), pair(), pair("test"), pair("val"), pair()]
    path = folder / f"x.{name}"
    if name == "json":
        written(path, [*rows, 3, {"image": "a.png"}])
    elif name == "jsonl":
        written(path, "\n".join([*map(json.dumps, rows), '{"image": ', "[]"]))
    elif name == "csv":
        lines = [",".join(row.values()) for row in rows]
        written(path, "\n".join(["image,caption,split", *lines, "a.png", "a.png,x,y,z"]))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        rows += [pair(image=None), pair(image="gone.png")]
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return Fed({"path": str(path), "split": "train"}, good=3, bad=2, excluded=2)


@source("coco_caption", "coco_retrieval", "flickr30k", "flickr30k_caption")
def captions(folder: Path, name: str) -> Fed:
    rows = [pair(caption=["x", "y"]), pair(), pair("test", caption=["x", "y"]), "no row"]
    files = {"images": pictures(folder, "a.png"), "annotations": written(folder / "x.json", rows)}
    return Fed({**files, "split": "train"}, good=3, bad=1, excluded=2)


@source("flickr8k")
def flickr8k(folder: Path, name: str) -> Fed:
    captions = "a.png#0\tx\na.png#1\ty\nb.png#0\tz\n"
    files = [written(folder / "token.txt", captions), written(folder / "train.txt", "a.png\n")]
    arguments = {"images": pictures(folder, "a.png"), "annotations": files, "split": "train"}
    return Fed(arguments, good=2, bad=0, excluded=1)


@source("flickr8k_judgements")
def judgements(folder: Path, name: str) -> Fed:
    judged = "a.png\tb.png#0\t1\t1\t2\na.png\tb.png#9\t1\t1\t2\na.png\ta.png#0\t4\t4\n"
    captions = written(folder / "token.txt", "a.png#0\tx\nb.png#0\tz\n")
    files = [captions, written(folder / "expert.txt", judged)]
    arguments = {"images": pictures(folder, "a.png"), "annotations": files, "split": "expert"}
    return Fed(arguments, good=1, bad=2, excluded=0)


@source("vg_caption")
def regions(folder: Path, name: str) -> Fed:
    rows = [pair(), pair(), {"image": "a.png"}]
    files = {"images": pictures(folder, "a.png"), "annotations": written(folder / "x.json", rows)}
    return Fed(files, good=2, bad=1, excluded=0)


@source("nocaps")
def nocaps(folder: Path, name: str) -> Fed:
    listed = [{"image": "a.png", "img_id": 1}, {"image": "a.png"}]
    benchmark = {
        "images": [{"id": number, "file_name": "a.png"} for number in (1, 2)],
        "annotations": [{"image_id": i, "caption": "x"} for i in ("1", 1, 2, 2, 9)],
    }
    files = [written(folder / "l.json", listed), written(folder / "b.json", benchmark)]
    arguments = {"images": pictures(folder, "a.png"), "annotations": files, "split": "val"}
    return Fed(arguments, good=2, bad=2, excluded=2)


@source("coco_vqa", "ok_vqa", "aok_vqa", "vg_vqa")
def questions(folder: Path, name: str) -> Fed:
    asked = [
        {"image": "a.png", "question": "what?", "question_id": n, "answer": answer}
        for n, answer in enumerate([["red", ""], 3, {"a": 0.5, "b": 0.5}, [""], [["x"]]])
    ]
    answers = {"annotations": [{"question_id": 77, "answers": [{"answer": "x"}]}]}
    files = [written(folder / "q.json", [*asked, "no"]), written(folder / "a.json", answers)]
    arguments = {"images": pictures(folder, "a.png"), "annotations": files, "split": "train"}
    return Fed(arguments, good=3, bad=3, excluded=1)


@source("nlvr")
def statements(folder: Path, name: str) -> Fed:
    rows = [
        {"sentence": "x", "label": label, "images": ["a.png", "a.png"]}
        for label in ("True", "False", "maybe")
    ]
    files = {"images": pictures(folder, "a.png"), "annotations": written(folder / "x.json", rows)}
    return Fed(files, good=2, bad=1, excluded=0)


@source("snli_ve")
def entailment(folder: Path, name: str) -> Fed:
    rows = [{"image": "a", "sentence": "x", "label": one} for one in ("neutral", "neutral", "-")]
    files = {"images": pictures(folder, "a.jpg"), "annotations": written(folder / "x.json", rows)}
    return Fed(files, good=2, bad=1, excluded=0)


@source("msrvtt_retrieval")
def videos(folder: Path, name: str) -> Fed:
    rows = [{"clip_name": n, "caption": "x"} for n in ("v1", "v1", "gone")] + [{"caption": "x"}]
    pictures(folder, "v1/1.png", "v1/2.png")
    (folder / "v1/._2.png").write_bytes(b"no frame")
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = {"images": str(folder), "annotations": str(folder / "x.jsonl")}
    return Fed(files, good=2, bad=2, excluded=0)


@source("folder")
def folder_of_images(folder: Path, name: str) -> Fed:
    pictures(folder, "a.png", "b.png", "below/c.png", ".ipynb_checkpoints/a.png")
    (folder / "a.json").write_text("{")
    for odd in ("._b.png", "d.HEIC"):
        (folder / odd).write_bytes(b"?")
    (folder / "e.jpg").write_bytes(b"no image")
    return Fed({"path": str(folder)}, good=2, bad=2, excluded=3)


@source("class_folders", "imagenet")
def classes(folder: Path, name: str) -> Fed:
    pictures(folder, "cat/a.png", "dog/b.png", "loose.png", "cat/.hidden/a.png", ".git/a.png")
    (folder / "dog/c.jpg").write_bytes(b"no image")
    argument = "images" if name == "imagenet" else "path"
    return Fed({argument: str(folder)}, good=2, bad=1, excluded=2)


def shard(path: Path) -> str:
    members = {
        **{"1.png": png(), "2.png": png(), "1.txt": b"x", "2.txt": b"y"},
        **{"3.png": png(), "3.json": b"{", "4.txt": b"no image", "5.png": png(), "5.txt": b"\xff"},
        **{"._1.png": b"?", "README": b"?"},
    }
    with tarfile.open(path, "w") as tar:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@source("webdataset", "cc3m", "cc12m", "laion", "sbu")
def shards(folder: Path, name: str) -> Fed:
    return Fed({"shards": shard(folder / "00.tar")}, good=2, bad=3, excluded=2)


@source("bootstrapped")
def bootstrapped(folder: Path, name: str) -> Fed:
    def record(index: int, image: str) -> dict[str, Any]:
        return {
            **{"key": f"k{index}", "index": index, "image": image, "image_id": f"k{index}"},
            **{"web_text": "web", "synthetic": ["made", "bad", ""], "fields": {}},
            "scores": {"web": 0.1, "synthetic": [0.9, 0.1, None]},
            "kept": {"web": False, "synthetic": [True, False, False]},
        }

    image = f"{pictures(folder / 'i', 'a.png')}/a.png"
    (folder / "shards").mkdir()
    written(folder / "job.json", {"source": {"name": "scenes"}, "num_shards": 1})
    rows = [record(0, image), record(1, image), record(2, f"{folder}/gone.png")]
    written(folder / "shards/shard-000000.jsonl", "".join(f"{json.dumps(r)}\n" for r in rows))
    written(folder / "shards/shard-000000.done", "{}")
    return Fed({"path": str(folder)}, good=2, bad=1, excluded=9)


@source("scenes", "scenes_classes", "scenes_nlvr", "scenes_vqa")
def scenes(folder: Path, name: str) -> Fed:
    arguments = {"size": 12, "image_size": 16, "limit": 5, "split": "human"}
    return Fed(arguments, good=5, bad=0, excluded=7)


def opened(name: str, arguments: dict[str, Any]) -> Any:
    return registry.build("dataset", {"name": name, **arguments})


def read_through(dataset: Any) -> tuple[int, Counter[str]]:
    """How many rows come out of the loader, and what is quarantined on the way."""
    quarantine = Quarantine(max_bad_fraction=1)
    data = EvalData(dataset, PROCESSORS, batch_size=4, quarantine=quarantine)
    return sum(len(batch["key"]) for batch in data.batches()), quarantine.counts


def test_every_registered_dataset_is_fed() -> None:
    assert sorted(SOURCES) == sorted(registry.index.names("dataset"))  # but those of other tests


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_what_comes_in_is_used_set_aside_or_left_out(tmp_path: Path, name: str) -> None:
    fed = SOURCES[name](tmp_path)
    dataset = opened(name, fed.arguments)
    counts = dataset.counts
    assert counts.seen == fed.good + fed.bad + fed.excluded
    assert sum(counts.left_out.values()) == fed.excluded
    assert counts.used == len(dataset) - sum(counts.set_aside.values())
    read, quarantined = read_through(dataset)
    assert read == fed.good
    assert quarantined.total() == fed.bad
    assert Counter(counts.set_aside) <= quarantined  # what is known before is found again


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_choice_of_rows_is_counted_too(tmp_path: Path, name: str) -> None:
    fed = SOURCES[name](tmp_path)
    whole = opened(name, {**fed.arguments, "limit": None}).counts
    counts = opened(name, {**fed.arguments, "limit": 1}).counts
    assert counts.seen == whole.seen
    chosen = counts.used + sum(counts.set_aside.values())
    assert chosen == 1
    rows = whole.used + sum(whole.set_aside.values())
    assert counts.left_out["limit"] == rows - 1


def test_counts_that_do_not_add_up_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="3 of 4 entries"):
        Counts(seen=4, used=2, set_aside={"damaged row": 1})


def test_counts_say_what_became_of_how_many() -> None:
    counts = Counts(1210, 1200, {"damaged row": 4}, {"limit": 6})
    said = "1,200 of 1,210 used; set aside: 4 (damaged row); left out: 6 (limit)"
    assert str(counts) == said
    assert json.loads(json.dumps(counts.as_dict()))["left_out"] == {"limit": 6}


def test_accounts_keep_datasets_of_one_name_apart() -> None:
    datasets = [opened("scenes", {"size": 4, "limit": limit}) for limit in (1, 2, 2)]
    found = accounts([*datasets, ["a row", "of a plain list"]])
    assert [one["used"] for one in found.values()] == [1, 2, 2]
    assert found["dataset"]["seen"] == 2


def test_too_much_set_aside_ends_a_run_as_unreadable_images_do(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    lines = [json.dumps(pair())] * 80 + ["{"] * 40
    path = written(tmp_path / "x.jsonl", "\n".join(lines))
    data = EvalData(opened("jsonl", {"path": path}), PROCESSORS, batch_size=30)
    with pytest.raises(DataError, match=r"damaged row.*x\.jsonl:1\d\d"):
        list(data.batches())
