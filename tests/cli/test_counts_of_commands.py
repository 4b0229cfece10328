"""Every command that reads files accounts for each: used, set aside with a reason, or left out."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavis_lite.cli.program import _parser

Command = Callable[..., Any]
READ_IMAGES = {
    "caption": (),
    "match": ("--text", "a red circle"),
    "search": ("--text", "a red circle", "--top", "9"),
    "answer": ("--question", "which colour?"),
}
READ_NO_IMAGES = {"list", "info", "convert", "data", "new", "env", "push", "vocabulary", "export"}
MODELS = {"answer": ("--type", "tiny")}
BROKEN = ("cut.png", "empty.jpg", "nowhere.png")


@pytest.fixture
def mixed(tmp_path: Path, pictures: Path) -> Path:
    """Three good pictures, three that cannot be read, a hidden one, and a file of another kind."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(3):
        shutil.copy(pictures / f"scene{number}.png", folder)
    whole = (pictures / "scene3.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "nowhere.png").symlink_to(tmp_path / "nowhere")
    (folder / ".hidden.png").write_bytes(whole)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_every_command_is_in_one_of_the_tables() -> None:
    actions = _parser("lavis-lite", ["list"])._actions
    (subparsers,) = (a for a in actions if isinstance(a, argparse._SubParsersAction))
    assert set(subparsers.choices) == {*READ_IMAGES, *READ_NO_IMAGES, "run"}


@pytest.mark.parametrize("task", READ_IMAGES)
def test_every_file_of_a_folder_is_used_set_aside_or_left_out(
    task: str, command: Command, mixed: Path
) -> None:
    model = MODELS.get(task, ("--type", "scenes"))
    done = command(task, mixed, *READ_IMAGES[task], *model, "--format", "jsonl")
    assert done.code == 1, done.err
    used = {Path(json.loads(line)["image"]).name for line in done.out.splitlines()}
    aside = {name for name in BROKEN if re.search(rf"/{name}: \w", done.err)}
    assert (used, aside) == ({f"scene{number}.png" for number in range(3)}, set(BROKEN))
    assert "3 of 6 could not be read" in done.err
    (left_out,) = re.findall(r"left out of folders: (.*)", done.err)
    assert sum(map(int, re.findall(r"(\d+) \(", left_out))) == 1  # a text file is no entry


def test_an_evaluation_says_of_how_many_rows_its_figures_are(
    command: Command, mixed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [*(f"scene{number}.png" for number in range(3)), *BROKEN]
    rows = [{"image": name, "caption": f"a picture, {name}"} for name in names]
    rows[2]["caption"] = " "
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + "no JSON\n")
    config = {
        "runner": {"name": "evaluate"},
        "model": {"name": "blip_image_text_matching", "type": "scenes"},
        "evaluate": [
            {"name": "itm", "data": {"name": "jsonl", "path": str(pairs), "images": str(mixed)}},
        ],
        "run": {"output_dir": str(tmp_path / "out"), "device": "cpu", "max_bad_fraction": 1.0},
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(config))
    caplog.set_level(logging.INFO)
    done = command("run", "--cfg", tmp_path / "evaluate.yaml")
    assert done.code == 0, done.err
    (record,) = map(json.loads, (tmp_path / "out" / "metrics.jsonl").read_text().splitlines())
    counts = record["counts"]["images"]
    assert (counts["seen"], counts["used"]) == (len(rows) + 1, 2)
    assert sum(counts["set_aside"].values()) == len(BROKEN) + 1
    assert counts["left_out"] == {"no text": 1}
    assert "2 of 7 images used" in caplog.text
