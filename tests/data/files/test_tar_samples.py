"""Which members of a tar are one sample: members apart from each other, names with dots."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.tar_samples import samples_of
from lavis_lite.errors import DataError


def png():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


def shard(folder, *names, name="s.tar"):
    """A tar whose texts are the names they stand in."""
    with tarfile.open(folder / name, "w", format=tarfile.GNU_FORMAT) as tar:
        for member in names:
            data = png() if member.endswith("png") else member.encode("utf-8", "replace")
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(folder / name)


def opened(shards, **arguments):
    return registry.build("dataset", {"name": "webdataset", "shards": shards, **arguments})


def read(dataset):
    return [(row["key"], row["text_input"]) for row in dataset]


def test_members_of_a_sample_need_not_follow_each_other(tmp_path):
    names = [f"{n}.png" for n in range(3)] + [f"{n}.txt" for n in (2, 0, 1)]
    dataset = opened(shard(tmp_path, *names))
    assert read(dataset) == [(f"s/{n}", f"{n}.txt") for n in range(3)]
    assert dataset.problems == []


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (["jpg", "txt"], {"k": ["jpg", "txt"]}),
        (["jpg", "seg.png", "txt"], {"k": ["jpg", "seg.png", "txt"]}),
        (["left.jpg", "right.jpg", "txt"], {"k": ["left.jpg", "right.jpg", "txt"]}),
        (["05.jpg", "05.txt", "06.jpg", "06.txt"],
         {"k.05": ["jpg", "txt"], "k.06": ["jpg", "txt"]}),
        (["05.jpg", "06.jpg"], {"k.05": ["jpg"], "k.06": ["jpg"]}),
        (["jpg", "txt", "05.jpg", "05.json"], {"k": ["jpg", "txt"], "k.05": ["jpg", "json"]}),
        (["05.txt", "06.jpg"], {"k": ["05.txt"], "k.06": ["jpg"]}),
        (["a.b.jpg", "a.b.txt"], {"k.a.b": ["jpg", "txt"]}),
    ],
)  # fmt: skip
def test_a_dot_is_part_of_a_key_where_an_image_with_its_text_shares_it(extensions, expected):
    members = {extension: (0, 0) for extension in extensions}
    assert {key: list(found) for key, found in samples_of("k", members)} == expected


def test_names_with_dots_are_samples_of_their_own(tmp_path):
    path = shard(tmp_path, "22.05.png", "22.05.txt", "22.06.png", "22.06.txt", "x.png", "x.txt")
    assert read(opened(path)) == [
        ("s/22.05", "22.05.txt"),
        ("s/22.06", "22.06.txt"),
        ("s/x", "x.txt"),
    ]
    asked = opened(path, image="05.png", text="06.txt")  # whoever names the extensions has them
    assert asked[0]["text_input"] == "22.06.txt"


def test_hidden_members_and_names_without_extension_are_counted(tmp_path):
    dataset = opened(shard(tmp_path, "x.png", "x.txt", "._x.png", "__MACOSX/._x.png", "README"))
    assert [row["key"] for row in dataset] == ["s/x"]
    assert dataset.counts.left_out == {
        "members: hidden: the name begins with a dot": 2,
        "members: a name without an extension": 1,
    }
    assert opened(shard(tmp_path, "./x.png", "./x.txt"))[0]["text_input"] == "./x.txt"


def test_names_that_are_no_utf_8_are_kept_apart(tmp_path):
    names = [os.fsdecode(name) for name in (b"caf\xe9.png", b"caf\xe8.png")]
    dataset = opened(shard(tmp_path, *names), text="")
    assert [os.fsencode(row["key"]) for row in dataset] == [b"s/caf\xe9", b"s/caf\xe8"]


def test_hidden_and_compressed_shards_of_a_folder_are_not_read_the_latter_said(tmp_path):
    shard(tmp_path, "x.png", "x.txt")
    (tmp_path / "._s.tar").write_bytes(b"?")
    (tmp_path / "t.tar.gz").write_bytes(b"?")
    for shards in (str(tmp_path), str(tmp_path / "*.tar")):
        assert len(opened(shards)) == 1
    assert "1 compressed shards are not read, such as t.tar.gz" in opened(str(tmp_path)).problems[0]


def test_a_sample_without_an_image_says_what_it_has_and_no_more_than_fits(tmp_path):
    names = [f"x.{n}" for n in range(1000)] + ["y.png"]
    dataset = opened(shard(tmp_path, *names), text="")
    with pytest.raises(DataError, match=r"no image: the sample has 0, 1, .* more") as caught:
        dataset[0]
    assert len(str(caught.value)) < 500
