"""Which images the words of a command line mean, and that one bad image costs no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from lavis_lite.cli.images import Images, find
from lavis_lite.errors import DataError


def red(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)), dtype=torch.float).view(3, 1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "b").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "b" / "BELOW.JPG")
    (tmp_path / "c.txt").write_text("a text")
    return tmp_path


def test_a_folder_means_its_images_and_those_below_in_order(folder: Path) -> None:
    names = [str(Path(name).relative_to(folder)) for name in find(str(folder))]
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "b/BELOW.JPG"]


def test_a_pattern_means_what_it_matches_also_in_folders_below(folder: Path) -> None:
    assert find(f"{folder}/[1-2].png") == [f"{folder}/1.png", f"{folder}/2.png"]
    assert find(f"{folder}/**/*.JPG") == [f"{folder}/b/BELOW.JPG"]
    assert find(f"{folder}/b*") == [f"{folder}/b/BELOW.JPG"]  # a folder that matches


def test_a_file_is_taken_whatever_its_name_also_one_with_brackets(folder: Path) -> None:
    odd = folder / "a[1].dat"
    Image.new("RGB", (4, 4)).save(odd, format="PNG")
    assert find(str(odd)) == [str(odd)]
    assert find("https://example.org/cat.jpg") == ["https://example.org/cat.jpg"]


def test_an_image_that_is_meant_twice_is_read_once(folder: Path) -> None:
    images = Images([str(folder / "1.png"), f"{folder}/[0-1].png", str(folder / "1.png")])
    assert images.names == [f"{folder}/1.png", f"{folder}/0.png"]


def test_what_is_not_there_is_a_problem_and_the_rest_is_read(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = [folder / "5.png", folder / "broken.png", f"{folder}/x*", folder / "0.png"]
    images = Images([str(word) for word in words])
    (batch,) = images.batches(red, size=8)
    assert batch.names == [f"{folder}/0.png"]
    lines = images.report().splitlines()
    assert lines[0] == "3 of 4 could not be read:"
    assert lines[1].startswith(f"  {folder}/5.png: no such file. Did you mean '")
    assert lines[2] == f"  {folder}/x*: no file matches"
    assert lines[3].startswith(f"  {folder}/broken.png: ")


def test_a_folder_without_images_and_nothing_at_all_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in this folder \(.avif, .bmp"):
        Images([str(tmp_path)])


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_batches_hold_every_image_once_in_order(folder: Path, size: int) -> None:
    (folder / "2.png").write_bytes(b"nothing")
    images = Images([f"{folder}/[0-9].png"])
    batches = list(images.batches(red, size))
    assert [n for b in batches for n in b.numbers] == [0, 1, 3, 4]
    assert [p for b in batches for p in b.pixels[:, 0, 0, 0].tolist()] == [0, 1, 3, 4]
    assert all(len(b.names) == len(b.pixels) == len(b.numbers) <= size for b in batches)
    assert images.report().startswith("1 of 5 could not be read:")


def test_some_of_the_images_can_be_chosen(folder: Path) -> None:
    images = Images([f"{folder}/[0-9].png"])
    assert [b.numbers for b in images.batches(red, 2, [1, 3, 4])] == [[1, 3], [4]]
