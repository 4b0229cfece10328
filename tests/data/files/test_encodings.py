"""Texts in other encodings: read, or refused with the file, the line and what to do."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import tarfile

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.encodings import decode_text, read_text
from lavis_lite.errors import ConfigError, DataError

WORD = "größe"
CSV = f"image,caption\na.png,{WORD}\n"
JSON = json.dumps([{"image": "a.png", "caption": WORD}], ensure_ascii=False)
JSONL = json.dumps({"image": "a.png", "caption": WORD}, ensure_ascii=False) + "\n"
CONTENTS = {"csv": CSV, "json": JSON, "jsonl": JSONL}


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return tmp_path


def opened(kind, path, **arguments):
    return registry.build("dataset", {"name": kind, "path": str(path), **arguments})


@pytest.mark.parametrize("kind", sorted(CONTENTS))
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be with a mark"]
)
def test_utf_8_and_what_bears_a_mark_is_read(folder, kind, encoding):
    data = CONTENTS[kind].encode(encoding.split(" ")[0])
    path = folder / f"x.{kind}"
    path.write_bytes(codecs.BOM_UTF16_BE + data if "with a mark" in encoding else data)
    assert opened(kind, path)[0]["text_input"] == WORD
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert opened(kind, path)[0]["text_input"] == WORD


@pytest.mark.parametrize("kind", sorted(CONTENTS))
def test_another_encoding_is_named_and_can_be_given(folder, kind):
    path = folder / f"x.{kind}"
    path.write_bytes(CONTENTS[kind].encode("cp1252"))
    with pytest.raises(DataError, match=rf"x\.{kind}:.*not UTF-8.*encoding: cp1252.*iconv"):
        opened(kind, path)
    assert opened(kind, path, encoding="cp1252")[0]["text_input"] == WORD
    with pytest.raises(ConfigError, match=r"no 'cp1253x'\. Did you mean 'cp125"):
        opened(kind, path, encoding="cp1253x")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_one_line_in_another_encoding_is_set_aside_alone(folder, kind):
    path = folder / f"x.{kind}"
    line = CONTENTS[kind].splitlines(keepends=True)[-1]
    path.write_bytes(CONTENTS[kind].encode() + line.encode("latin-1") + line.encode())
    dataset = opened(kind, path)
    assert dataset.counts.set_aside == {"damaged text": 1}
    number = len(CONTENTS[kind].splitlines()) + 1
    with pytest.raises(DataError, match=rf"^damaged text: .*x\.{kind}:{number}: "):
        dataset[1]
    assert dataset[2]["text_input"] == WORD


def test_utf_16_without_a_mark_is_recognised(folder):
    (folder / "x.csv").write_bytes(CSV.encode("utf-16-le"))
    with pytest.raises(DataError, match=r"looks like UTF-16 .* encoding: utf-16-le"):
        opened("csv", folder / "x.csv")
    assert opened("csv", folder / "x.csv", encoding="utf-16-le")[0]["text_input"] == WORD


def test_a_cut_utf_16_file_is_an_error_of_ours(folder):
    (folder / "x.csv").write_bytes(CSV.encode("utf-16")[:-1])
    with pytest.raises(DataError, match=r"x\.csv: is not utf-16"):
        opened("csv", folder / "x.csv")


def test_texts_beside_images_are_read_alike(folder):
    (folder / "a.txt").write_bytes(f"one\n{WORD}".encode("latin-1"))
    for name, encoding in (("b", "utf-16"), ("c", "utf-8-sig")):
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_bytes(WORD.encode(encoding))
    dataset = opened("folder", folder)
    assert [dataset[n]["text_input"] for n in (1, 2)] == [WORD, WORD]
    with pytest.raises(DataError, match=r"^damaged text: .*a\.txt:2: .*iconv"):
        dataset[0]
    (folder / "b.txt").unlink()
    given = opened("folder", folder, encoding="latin-1")
    assert given[0]["text_input"] == f"one\n{WORD}"


def test_texts_in_shards_are_read_alike(folder):
    with tarfile.open(folder / "0.tar", "w") as tar:
        texts = {"a": WORD.encode("cp1252"), "b": WORD.encode("utf-16"), "c": WORD.encode()}
        for key, text in texts.items():
            image = (folder / "a.png").read_bytes()
            for name, data in ((f"{key}.png", image), (f"{key}.txt", text)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    shards = {"name": "webdataset", "shards": str(folder / "0.tar")}
    dataset = registry.build("dataset", shards)
    assert [dataset[n]["text_input"] for n in (1, 2)] == [WORD, WORD]
    with pytest.raises(DataError, match=r"^damaged text: 0/a\.txt, line 1: .*encoding: cp1252"):
        dataset[0]
    given = registry.build("dataset", {**shards, "encoding": "cp1252"})
    assert given[0]["text_input"] == WORD


def test_the_line_of_the_first_foreign_byte_is_named(tmp_path):
    data = b"one\ntwo\nth\xfcree\n"
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.txt:3: "):
        read_text(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"somewhere, line 3: "):
        decode_text(data, "somewhere")
    assert decode_text(data, "somewhere", "latin-1") == "one\ntwo\nthüree\n"
