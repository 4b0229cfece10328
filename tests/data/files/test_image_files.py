"""Which files of a folder are images: links followed, hidden ones out, the rest counted."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from lavis_lite.data.files.image_files import HIDDEN, LOOPED, is_image_name, list_images
from lavis_lite.data.files.images import _FORMATS, SUFFIXES


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_every_suffix_of_a_format_that_is_decoded_is_taken():
    Image.init()
    decoded = {name for name, kind in Image.registered_extensions().items() if kind in _FORMATS}
    assert decoded <= SUFFIXES


def test_images_come_sorted_by_their_parts_whatever_the_case_of_their_suffix(tmp_path):
    put(tmp_path, "b/1.PNG", "b.jpg", "a/2.jfif", "a.txt", "a/x.json", "a-b/3.mpo")
    assert list_images(tmp_path).paths == ["a/2.jfif", "a-b/3.mpo", "b/1.PNG", "b.jpg"]
    assert list_images(tmp_path).left_out == {}


def test_what_looks_like_an_image_and_is_not_taken_is_counted_by_its_rule(tmp_path):
    put(tmp_path, "a.HEIC", "b.heic", "c.svg", "d.jpg", "._d.jpg", ".cache/e.png", ".git/config")
    found = list_images(tmp_path)
    assert found.paths == ["d.jpg"]
    assert found.left_out == {".heic is not read": 2, ".svg is not read": 1, HIDDEN: 2}


def test_a_folder_that_is_named_as_an_image_is_a_folder(tmp_path):
    put(tmp_path, "x.jpg/inside.png")
    assert list_images(tmp_path).paths == ["x.jpg/inside.png"]
    assert is_image_name("x.jpg")
    assert not is_image_name("._x.jpg")


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    root, outside = put(tmp_path / "root", "real/a.png"), put(tmp_path / "outside", "deep/b.png")
    for name, target in (
        ("another", root / "real"), ("loop", root), ("more", outside), ("same", outside),
        ("broken", tmp_path / "gone"),
    ):  # fmt: skip
        os.symlink(target, root / name)
    os.symlink(root / "circle", root / "circle")
    os.symlink(outside, outside / "deep" / "up")
    found = list_images(root)
    assert found.paths == ["more/deep/b.png", "real/a.png"]
    assert found.left_out == {LOOPED: 4}


def test_a_link_to_a_file_is_that_file_and_a_broken_one_is_left_to_the_reading(tmp_path):
    put(tmp_path, "a.png")
    os.symlink(tmp_path / "a.png", tmp_path / "b.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "c.png")
    assert list_images(tmp_path).paths == ["a.png", "b.png", "c.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    put(tmp_path, "a.png", "closed/b.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list_images(tmp_path)
    assert found.paths == ["a.png"]
    (problem,) = found.problems(tmp_path)
    assert "closed: a folder that is not read: Permission denied" in problem


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe8.png"])
def test_names_that_are_no_utf_8_are_listed_as_python_has_them(tmp_path, name):
    (tmp_path / os.fsdecode(name)).write_bytes(b"")
    assert [os.fsencode(path) for path in list_images(tmp_path).paths] == [name]
