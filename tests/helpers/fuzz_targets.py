"""Good annotation files and shards of every kind that a reader takes, to be damaged."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from published_samples import write_published

from lavis_lite.data.published import cards

Packer = Callable[[bytes], bytes]
PACKERS: dict[str, Packer] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
CAPTIONS = ["a red wall", "ein Haus, ein Baum", 'she said "hi"', "two 🐕", "", "a\tb"]


@dataclass
class Target:
    """A file and the dataset, or the function, that reads it.

    Attributes:
        name: of the reader, for the record.
        path: of the file.
        kind: how it is damaged: `json`, `jsonl`, `tar`, `zip`, `safetensors`, or by `bytes`.
        component: the dataset.
        data: the good bytes, unpacked.
        packed: how it is compressed, ``.gz`` or the like; empty where it is not.
        read: what reads it, where no dataset does.
    """

    name: str
    path: Path
    kind: str
    component: dict[str, Any] = field(default_factory=dict)
    packed: str = ""
    read: Callable[[Path], None] | None = None
    data: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.path.read_bytes()
        self.path.write_bytes(self.pack(self.data))

    def pack(self, data: bytes) -> bytes:
        """The bytes as they are in the file."""
        return PACKERS[self.packed](data) if self.packed else data


def write_targets(folder: Path) -> list[Target]:
    """Write all files below a folder."""
    return [
        *_annotations(folder / "own"),
        *_shards(folder / "shards"),
        *_bootstrapped(folder / "bootstrapped"),
        *_published(folder / "data"),
    ]


def _png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def _annotations(folder: Path) -> list[Target]:
    folder.mkdir(parents=True)
    for number in range(len(CAPTIONS)):
        (folder / f"{number}.png").write_bytes(_png(number))
    rows = [
        {"image": f"{n}.png", "caption": text, "image_id": n, "key": f"k{n}"}
        for n, text in enumerate(CAPTIONS)
    ]
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(6)],
        "annotations": [{"id": n, "image_id": n % 6, "caption": "x"} for n in range(9)],
    }
    karpathy = {
        "images": [
            {"filename": f"{n}.png", "sentences": [{"raw": "x"}], "cocoid": n, "split": "val"}
            for n in range(6)
        ]
    }
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    texts = {
        ("json", "rows.json"): json.dumps(rows),
        ("json", "coco.json"): json.dumps(coco),
        ("json", "karpathy.json"): json.dumps(karpathy),
        ("jsonl", "rows.jsonl"): lines,
        ("jsonl", "rows.jsonl.gz"): lines,
        ("json", "rows.json.bz2"): json.dumps(rows),
        ("csv", "rows.csv"): _separated(rows, ","),
        ("csv", "rows.tsv"): _separated(rows, "\t"),
        ("csv", "rows.csv.xz"): _separated(rows, ","),
        ("folder", "captions.txt"): "".join(f"{n}.png#0\ta wall\n" for n in range(6)),
        ("folder", "0.json"): json.dumps({"caption": "a wall", "more": [1, {"a": None}]}),
    }
    targets = []
    for (reader, name), text in texts.items():
        place = folder / Path(name).name
        if reader == "folder":
            place = folder.with_name(f"own-{name}") / name
            place.parent.mkdir()
            for number in range(6):
                (place.parent / f"{number}.png").write_bytes(_png(number))
        place.write_text(text, encoding="utf-8")
        path = place.parent if reader == "folder" else place
        packed = place.suffix if place.suffix in PACKERS else ""
        kind = next((k for k in ("jsonl", "json") if f".{k}" in place.suffixes), "bytes")
        component = {"name": reader, "path": str(path)}
        targets.append(Target(f"{reader}: {name}", place, kind, component, packed))
    return [*targets, *_parquet(folder, rows)]


def _separated(rows: list[dict[str, Any]], delimiter: str) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _parquet(folder: Path, rows: list[dict[str, Any]]) -> list[Target]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return []
    path = folder / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return [Target("parquet", path, "bytes", {"name": "parquet", "path": str(path)})]


def _shards(folder: Path) -> list[Target]:
    folder.mkdir(parents=True)
    targets = []
    for form, number in FORMATS.items():
        path = folder / f"{form}.tar"
        with tarfile.open(path, "w", format=number) as tar:
            for n, text in enumerate(CAPTIONS):
                stem = f"{'deep/' * 20}ünïcode-{n}" if n == 3 and form != "ustar" else f"{n:04d}"
                fields = json.dumps({"url": "http://x", "n": n, "caption": text}).encode()
                for end, data in (("png", _png(n)), ("txt", text.encode()), ("json", fields)):
                    info = tarfile.TarInfo(f"{stem}.{end}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        component = {"name": "webdataset", "shards": str(path)}
        targets.append(Target(f"webdataset: {form}", path, "tar", component))
        texts = {**component, "text": "json:caption", "image_id": "n", "missing_ok": True}
        targets.append(Target(f"webdataset: {form}, json", path, "tar", texts))
    return targets


def _bootstrapped(folder: Path) -> list[Target]:
    (folder / "shards").mkdir(parents=True)
    source = {"name": "scenes", "split": "web", "size": 4}
    job = folder / "job.json"
    job.write_text(json.dumps({"source": source, "num_shards": 1}))
    base = folder / "shards" / "shard-000000"
    records = [
        {
            "key": f"k{n}",
            "index": n,
            "image": None,
            "image_id": f"k{n}",
            "web_text": "a wall",
            "synthetic": ["a red wall"],
            "scores": {"web": 0.1, "synthetic": [0.9]},
            "kept": {"web": True, "synthetic": [True]},
            "reason": {"web": "", "synthetic": [""]},
            "fields": {"noise": "junk"},
        }
        for n in range(4)
    ]
    base.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    base.with_suffix(".done").write_text("{}")
    with tarfile.open(base.with_suffix(".tar"), "w") as tar:
        for n in range(4):
            info = tarfile.TarInfo(f"{n:09d}.png")
            info.size = len(_png(n))
            tar.addfile(info, io.BytesIO(_png(n)))
    component = {"name": "bootstrapped", "path": str(folder)}
    return [
        Target("bootstrapped: job", job, "json", component),
        Target("bootstrapped: records", base.with_suffix(".jsonl"), "jsonl", component),
        Target("bootstrapped: images", base.with_suffix(".tar"), "tar", component),
    ]


def _published(folder: Path) -> list[Target]:
    """The first split of each published dataset that has annotations."""
    write_published(folder)
    targets = []
    for name in cards.names():
        card = cards.card(name)
        split = card.splits[0]
        for file in card.annotations[split]:
            path = folder / file.file
            if path.is_file():
                kind = "jsonl" if ".jsonl" in path.suffixes else "json"
                component = {"name": name, "split": split, "root": str(folder)}
                targets.append(Target(f"{name}: {path.name}", path, kind, component))
    return targets
