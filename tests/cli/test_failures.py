"""What goes wrong with one image costs that one; options that change nothing are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavis_lite import load_model
from lavis_lite.cli.output import JsonLines, Table

Command = Callable[..., Any]
SCENES = ("--type", "scenes")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a captioner that gives NaN."""
    model = load_model("blip_caption", "scenes")
    state = model.state_dict()
    state["visual_encoder.norm.weight"].fill_(torch.nan)
    path = tmp_path_factory.mktemp("weights") / "nan.pth"
    torch.save(state, path)
    return path


@pytest.mark.parametrize("how", [(), ("--sample",), ("--num-beams", 1)])
def test_a_captioner_that_gives_nan_gives_no_caption(
    command: Command, pictures: Path, broken: Path, how: tuple
) -> None:
    image = pictures / "scene0.png"
    output = command(
        "caption", image, "--model", "blip_caption", *SCENES, "--checkpoint", broken, *how
    )
    assert output.code == 1
    assert output.out == ""
    assert "1 of 1 could be read, and failed" in output.err
    assert f"{image}: not finite: the model gives NaN" in output.err


@pytest.mark.parametrize("task", ["match", "search"])
def test_scores_that_are_no_numbers_are_no_rows_and_others_go_on(
    command: Command, pictures: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavis_lite.cli import images

    whole = images.Images.open

    def one_is_broken(self: Any, name: str) -> Image.Image:
        picture = whole(self, name)
        picture.info["broken"] = name.endswith("scene0.png")
        return picture

    monkeypatch.setattr(images.Images, "open", one_is_broken)
    from lavis_lite.cli import command as command_module

    real = command_module.open_session

    def session(*args: Any) -> Any:
        import dataclasses

        made = real(*args)

        def process(picture: Image.Image) -> torch.Tensor:
            pixels = made.image(picture)
            return pixels * float("nan") if picture.info.get("broken") else pixels

        return dataclasses.replace(made, image=process)

    monkeypatch.setattr(command_module, "open_session", session)
    output = command(task, pictures, *SCENES, "--text", "a red circle")
    names = {json.loads(line)["image"] for line in output.out.splitlines()}
    assert output.code == 1
    assert len(names) == 4
    assert not any(name.endswith("scene0.png") for name in names)
    assert "scene0.png: not finite" in output.err
    assert "NaN" not in output.out


def test_an_overlay_of_a_long_name_is_cut_and_one_that_fails_costs_no_other(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    long = tmp_path / f"{'x' * 250}.png"
    long.write_bytes((pictures / "scene0.png").read_bytes())
    where = tmp_path / "where"
    asked = ("match", long, pictures / "scene1.png", *SCENES, "--text", "a red circle")
    output = command(*asked, "--overlay", where)
    assert output.code == 0
    assert len(list(where.iterdir())) == 2

    (tmp_path / "blocked" / "0002-scene1-1.png").mkdir(parents=True)
    output = command(*asked, "--overlay", tmp_path / "blocked")
    assert output.code == 1
    found = [json.loads(line)["overlay"] for line in output.out.splitlines()]
    assert found[0] is not None
    assert found[1] is None
    assert "no overlay 0002-scene1-1.png" in output.err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_that_an_encoding_cannot_hold_are_escaped_and_found_again(
    tmp_path: Path, encoding: str
) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), "日本語.png"]
    path = tmp_path / "rows.jsonl"
    with path.open("w", encoding=encoding) as stream:
        for name in names:
            JsonLines(stream).write({"image": name})
    lines = path.read_text(encoding).splitlines()
    assert [json.loads(line)["image"] for line in lines] == names
    with path.open("w", encoding=encoding) as stream:
        table = Table(stream)
        for name in names:
            table.write({"image": name})
        table.close()
    assert len(path.read_text(encoding).splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top-p", 0.5), "--top-p: it is of drawn captions; give --sample too"),
        (("--seed", 3), "--seed: it is of drawn captions; give --sample too"),
        (("--sample", "--num-beams", 4), "--num-beams: --sample draws captions"),
        (("--num-captions", 5), "5 from 3 beams; give --num-beams 5"),
        (("--num-beams", "abc"), "a whole number is expected, not 'abc'"),
        (("--seed", "abc"), "a whole number is expected, not 'abc'"),
        (("--sample", "--top-p", 7), "above 0, at most 1, not 7"),
    ],
)
def test_options_without_effect_or_sense_are_refused(
    command: Command, pictures: Path, words: tuple, message: str
) -> None:
    output = command("caption", pictures / "scene0.png", *SCENES, *words)
    assert output.code == 2
    assert message in output.err


def test_an_empty_word_is_no_folder_and_no_text(command: Command, pictures: Path) -> None:
    assert "an empty word is no image" in command("caption", "", *SCENES).err
    assert "it is empty" in command("match", pictures, *SCENES, "--text", " ").err
    assert "it is empty" in command("match", pictures, "--text", "a", "--overlay", "").err


def test_a_sideways_photograph_is_turned_where_that_is_asked_for(tmp_path: Path) -> None:
    from lavis_lite.cli.images import Images

    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "sideways.jpg"
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert Images([str(path)]).open(str(path)).size == (8, 4)
    assert Images([str(path)], exif=True).open(str(path)).size == (4, 8)


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_an_answer(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "bom.txt").write_text("red\n", encoding="utf-8-sig")
    asked = ("answer", pictures / "scene0.png", *SCENES, "--question", "what color?")
    output = command(*asked, "--answers", tmp_path / "bom.txt")
    assert json.loads(output.out)["answer"] == "red"


def test_the_package_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lavis_lite", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.strip()
