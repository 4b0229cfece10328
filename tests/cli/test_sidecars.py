"""Captions as files beside the images: whole, resumed, counted, and a table of them."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavis_lite.cli import sidecars
from lavis_lite.io import files

Command = Callable[..., Any]
FAST = ("--type", "scenes", "--min-length", 5)


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """Four good pictures, one of them below, and one that cannot be read."""
    shutil.copytree(pictures, tmp_path / "photos", dirs_exist_ok=True)
    (tmp_path / "photos" / "scene3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "photos"


def texts(folder: Path, suffix: str = ".txt") -> dict[str, str]:
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob(f"*{suffix}")}
    return {name: text for name, text in found.items() if name != "notes.txt"}


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_captions_are_written_beside_the_images_and_told_in_one_line(
    command: Command, folder: Path
) -> None:
    done = command("caption", folder, *FAST, "--sidecar", ".txt", "--prefix", "art, ")
    assert (done.code, done.out) == (1, "")
    assert set(texts(folder)) == {"below/scene4.txt", *(f"scene{n}.txt" for n in range(3))}
    plain = command("caption", folder / "scene0.png", *FAST, "--format", "table").out
    assert texts(folder)["scene0.txt"].removeprefix("art, ").strip() in plain
    assert all(text.startswith("art, ") and text.endswith("\n") for text in texts(folder).values())
    (line,) = done.err.splitlines()
    assert line.startswith("5 images: 4 captions written, 1 set aside (1 ")
    assert line.endswith("scene3.png)")
    assert not list(folder.rglob("*.tmp"))


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "scene3.png").unlink()
    written, write = [], sidecars.Sidecars.write

    def interrupted(self: Any, name: str, captions: list[str]) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, captions)

    with monkeypatch.context() as patched:
        patched.setattr(sidecars.Sidecars, "write", interrupted)
        first = command("caption", folder, *FAST, "--sidecar", ".txt", "--csv", folder / "a.csv")
    assert first.code == 130
    assert first.err.splitlines()[-1] == "4 images: 2 captions written"
    before = texts(folder)
    assert len(before) == 2
    second = command("caption", folder, *FAST, "--sidecar", ".txt", "--csv", folder / "a.csv")
    assert (second.code, second.out) == (0, "")
    assert second.err.splitlines()[-1] == "4 images: 2 captions written, 2 there already"
    assert texts(folder).items() >= before.items()
    rows = {Path(row["image"]).name: row["caption"] for row in table(folder / "a.csv")}
    assert rows == {
        Path(name).with_suffix(".png").name: text.strip() for name, text in texts(folder).items()
    }
    third = command("caption", folder, *FAST, "--sidecar", ".txt")
    assert third.err.splitlines()[-1] == "4 images: 0 captions written, 4 there already"


def test_what_is_there_is_skipped_replaced_or_added_to(command: Command, folder: Path) -> None:
    one, beside = folder / "scene0.png", folder / "scene0.txt"
    beside.write_text("mine")
    words = ("caption", one, *FAST, "--sidecar", ".txt")
    assert command(*words).code == 0
    assert beside.read_text() == "mine"
    command(*words, "--existing", "append")
    first, caption = beside.read_text().splitlines()
    assert (first, bool(caption)) == ("mine", True)
    command(*words, "--existing", "append")
    assert beside.read_text() == f"mine\n{caption}\n"
    command(*words, "--existing", "overwrite", "--num-captions", 2)
    assert len(beside.read_text().splitlines()) == 2
    assert beside.read_text().splitlines()[0] == caption


def test_the_table_has_a_row_for_every_image(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    done = command("caption", folder, *FAST, "--csv", tmp_path / "new" / "a.csv")
    assert done.code == 1
    assert len(done.out.splitlines()) == 4
    rows = table(tmp_path / "new" / "a.csv")
    assert list(rows[0]) == ["image", "caption", "problem"]
    assert len(rows) == 5
    assert [Path(row["image"]).name for row in rows if row["problem"]] == ["scene3.png"]
    assert not texts(folder)


def test_two_images_that_would_share_a_sidecar_are_told(command: Command, folder: Path) -> None:
    shutil.copy(folder / "scene0.png", folder / "scene0.bmp")
    done = command("caption", folder, *FAST, "--sidecar", ".txt")
    assert done.code == 1
    assert "its sidecar is that of another image" in done.err
    assert len(texts(folder)) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_costs_no_other(command: Command, folder: Path) -> None:
    (folder / "below").chmod(0o555)
    done = command("caption", folder, *FAST, "--sidecar", ".txt")
    (folder / "below").chmod(0o755)
    assert done.code == 1
    assert "sidecar not written" in done.err
    assert len(texts(folder)) == 3


def test_a_sidecar_that_cannot_be_replaced_leaves_no_half_file(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    (folder / "scene0.txt").write_text("mine")
    monkeypatch.setattr(files, "publish", full)
    words = ("caption", folder / "scene0.png", *FAST, "--sidecar", ".txt")
    done = command(*words, "--existing", "overwrite")
    assert done.code == 1
    assert "sidecar not written (No space left on device)" in done.err
    assert (folder / "scene0.txt").read_text() == "mine"
    assert not list(folder.rglob("*.tmp"))


def test_what_cannot_be_a_sidecar_is_refused(command: Command, folder: Path) -> None:
    one = folder / "scene0.png"
    for words, says in (
        ((one, "--sidecar", "txt"), "Did you mean '.txt'"),
        ((one, "--sidecar", ".png"), "a suffix of images"),
        ((one, "--sidecar", "."), "A suffix with its dot"),
        (("https://example.org/a.png", "--sidecar", ".txt"), "is no file on this disk"),
        ((one, "--existing", "append"), "give --sidecar"),
        ((one, "--csv", one / "a.csv"), "--csv: "),
    ):
        done = command("caption", *words, *FAST)
        assert (done.code, done.out) == (2, "")
        assert says in done.err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_over_ten_thousand_images(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, stop, write = 10_000, 4_000, sidecars.Sidecars.write
    for number in range(total):
        colour = (number % 256, number // 256, 90)
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number:05d}.png", compress_level=0)
    held: dict[int, float] = {}

    def resident() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def watched(self: Any, name: str, captions: list[str]) -> None:
        write(self, name, captions)
        done = self.written + self.kept
        if done % 1000 == 0:
            held[done] = resident()
        if self.written == stop and not self.kept:
            raise KeyboardInterrupt

    monkeypatch.setattr(sidecars.Sidecars, "write", watched)
    words = ("caption", tmp_path, "--type", "tiny", "--sidecar", ".txt", "--csv")
    how = ("--num-beams", 1, "--min-length", 5, "--max-length", 6, "--batch-size", 100)
    first = command(*words, tmp_path / "a.csv", *how)
    assert first.code == 130
    assert len(list(tmp_path.glob("*.txt"))) == stop
    second = command(*words, tmp_path / "a.csv", *how)
    assert second.code == 0
    assert len(list(tmp_path.glob("*.txt"))) == total
    assert len(table(tmp_path / "a.csv")) == total
    assert held[stop] - held[1000] < 30, held  # MiB
    assert held[total] - held[stop + 1000] < 30, held
