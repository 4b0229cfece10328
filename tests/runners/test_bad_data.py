"""Training runs on files of which some are broken: they finish, and say what they left out."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy_runs import run, toy_config

from lavis_lite.config.schema import TrainDataset
from lavis_lite.errors import DataError

BROKEN = ["truncated image", "not an image", "empty file"]


def picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((4, 4), 50).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def broken(number: int) -> bytes:
    """A JPEG cut in the middle, a web page in place of one, or nothing."""
    return [picture()[:-20], b"<!DOCTYPE html><html>404</html>", b""][number % len(BROKEN)]


def write_tar(path: Path, images: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for key, image in images.items():
            fields = json.dumps({"target": 0.5}).encode()
            for name, data in (
                (f"{key}.jpg", image),
                (f"{key}.txt", b"x"),
                (f"{key}.json", fields),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def shards(folder: Path, percent: int) -> str:
    """200 samples in two shards; of each hundred so many are broken."""
    for shard in range(2):
        images = {f"{n:03d}": broken(n) if n < percent else picture() for n in range(100)}
        write_tar(folder / f"part-{shard}.tar", images)
    return str(folder / "part-{0..1}.tar")


def config(folder: Path, shards: str, **changes: Any) -> Any:
    dataset = TrainDataset("webdataset", {"shards": shards, **changes.pop("arguments", {})})
    # 25 steps of 8: every sample once.
    return toy_config(
        folder, data__train=[dataset], data__batch_size=8, run__max_steps=25, **changes
    )


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open()]


@pytest.mark.fault(19)
@pytest.mark.parametrize(("percent", "workers"), [(1, 0), (5, 2)])
def test_a_run_with_some_broken_images_finishes_and_names_them(tmp_path, percent, workers):
    source = shards(tmp_path, percent)
    run(config(tmp_path / "out", source, data__num_workers=workers))
    bad = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").open()]
    assert len(bad) == 2 * percent
    assert {row["key"] for row in bad} == {
        f"part-{shard}/{n:03d}" for shard in range(2) for n in range(percent)
    }
    for row in bad:
        assert row["reason"].startswith(BROKEN[int(row["key"][-3:]) % len(BROKEN)])
    assert metrics(tmp_path / "out")[-1]["quarantined"] == 2 * percent
    assert json.loads((tmp_path / "out" / "complete.json").read_text())["step"] == 25


@pytest.mark.fault(19)
def test_too_many_broken_images_stop_a_run(tmp_path):
    with pytest.raises(DataError, match=r"more than max_bad_fraction=0\.1: .*truncated image"):
        run(config(tmp_path / "out", shards(tmp_path, 40)))
    assert not (tmp_path / "out" / "complete.json").exists()


@pytest.mark.fault(20)
def test_a_run_on_cut_missing_and_damaged_shards_names_them_in_its_summary(tmp_path, caplog):
    shards(tmp_path, 0)
    os.truncate(tmp_path / "part-1.tar", 100 * 1024)
    damaged = bytearray((tmp_path / "part-0.tar").read_bytes())
    damaged[len(damaged) // 2 // 512 * 512 :] = b"\xff" * 512
    (tmp_path / "part-2.tar").write_bytes(damaged)
    (tmp_path / "part-3.tar").write_bytes(b"<html>404</html>" * 100)
    every = str(tmp_path / "part-{0..4}.tar")
    run(config(tmp_path / "out", every, arguments={"missing_ok": True}))
    problems = json.loads((tmp_path / "out" / "complete.json").read_text())["problems"]
    said = {Path(line.split(":")[0]).name: line for line in problems}
    assert said.keys() == {f"part-{n}.tar" for n in (1, 2, 3, 4)}
    assert "the shard was cut" in said["part-1.tar"]
    assert "the shard was cut" in said["part-2.tar"]
    assert "not a plain tar file" in said["part-3.tar"]
    assert "the shard is missing" in said["part-4.tar"]
    assert all(problem in caplog.text for problem in problems)
