"""Bad rows, bad files, hostile shards: each has a defined outcome, named and counted."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zlib

import pytest
from PIL import Image

from lavis_lite.errors import ConfigError, DataError


def quarantined(folder):
    return [json.loads(line) for line in (folder / "quarantine.jsonl").open()]


def png(size=(8, 8), colour=(200, 30, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def bomb():
    """A PNG of 15000 x 15000 pixels in a few kilobytes, most of them never written."""
    data = bytearray(png())
    data[16:24] = (15000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_unreadable_empty_and_repeated_samples_are_set_aside_with_key_shard_and_reason(
    capfilt, records
):
    folder = capfilt(
        "out",
        "data.source={name: toy_pairs, broken: [1], silent: [9], same_key: [16, 18]}",
        "run.max_bad_fraction=0.5",
    )
    assert quarantined(folder) == [
        {"shard": 0, "key": "pair-1", "index": 1, "reason": "truncated image: for the test"},
        {"shard": 1, "key": "pair-9", "index": 9, "reason": "empty text"},
        {"shard": 2, "key": "pair-0", "index": 18, "reason": "key was there before in this shard"},
    ]
    assert [r["index"] for r in records(folder)] == [n for n in range(24) if n not in (1, 9, 18)]
    stats = json.loads((folder / "stats.json").read_text())
    assert stats["read"] == 24
    assert stats["images"] == 21
    assert stats["unreadable"] == {
        "truncated image": 1,
        "empty text": 1,
        "key was there before in this shard": 1,
    }
    # Row 16 has the key of row 0 in another shard: both stay, and are counted.
    assert stats["keys_in_several_shards"] == 1


def test_images_without_text_are_captioned_when_asked(capfilt, records):
    source = "data.source={name: toy_pairs, silent: [3, 4]}"
    folder = capfilt("out", source, "data.without_text=caption")
    silent = [r for r in records(folder) if r["index"] in (3, 4)]
    assert len(silent) == 2
    assert all(r["reason"]["web"] == "empty text" and not r["kept"]["web"] for r in silent)
    assert all(r["synthetic"][0] and r["scores"]["synthetic"][0] is not None for r in silent)
    assert json.loads((folder / "stats.json").read_text())["web"]["empty"] == 2


def test_too_many_bad_samples_stop_the_run_and_say_why(capfilt, load, tmp_path):
    source = f"data.source={{name: toy_pairs, size: 200, broken: {list(range(0, 200, 8))}}}"
    with pytest.raises(DataError) as caught:
        capfilt("out", source, "runner.shard_size=60")
    assert "more than run.max_bad_fraction=0.1: truncated image" in str(caught.value)
    assert not (tmp_path / "out" / "complete.json").exists()
    assert capfilt("tolerant", source, "runner.shard_size=60", "run.max_bad_fraction=0.2")


def test_a_shard_of_nothing_but_bad_samples_is_done_and_empty(capfilt, records):
    source = f"data.source={{name: toy_pairs, broken: {list(range(8, 16))}}}"
    folder = capfilt("out", source)
    assert (folder / "shards" / "shard-000001.jsonl").read_bytes() == b""
    assert len(records(folder)) == 16


def test_files_of_all_kinds_of_badness_in_a_folder(capfilt, records, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.linear_gradient("L").save(photos / "good.jpg")
    jpeg = (photos / "good.jpg").read_bytes()
    for name, data in {
        "bomb.png": bomb(),
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "page.jpg": b"<html>login</html>",
        "zero.png": b"",
    }.items():
        (photos / name).write_bytes(data)
    for file in list(photos.iterdir()):
        file.with_suffix(".txt").write_text("a picture")
    folder = capfilt("out", f"data.source={{name: folder, path: {photos}}}")
    reasons = {q["key"]: q["reason"].split(":")[0] for q in quarantined(folder)}
    assert sorted(reasons.values()) == [
        "empty file",
        "not an image",
        "too many pixels",
        "truncated image",
    ]
    assert [r["image"] for r in records(folder)] == [str(photos / "good.jpg")]


@pytest.fixture
def hostile(tmp_path):
    """Shards as a stranger might make them: what is good in them is samples 0, 1 and 2."""
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for name, data in [
            ("0.png", png()),
            ("0.txt", b"a red thing"),
            ("../x.png", png()),
            ("../x.txt", b"outside"),
            ("/etc/y.png", png()),
            ("bad.pyd", pickle.dumps(print)),
            ("1.png", png(colour=(0, 99, 0))),
            ("1.txt", b"a green thing"),
            ("0.png", png()),
            ("0.txt", b"a second zero"),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with tarfile.open(folder / "00001.tar", "w") as tar:
        for name, data in [
            ("0.png", png(colour=(0, 0, 99))),
            ("0.txt", b"a blue thing"),
            ("2.png", png(size=(64, 64)) * 9),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    cut = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(cut[:3000])
    return folder


def test_hostile_and_cut_tar_shards_give_what_is_good_in_them(capfilt, records, hostile, caplog):
    folder = capfilt("out", f"data.source={{name: webdataset, shards: {hostile}}}")
    assert {r["key"]: r["web_text"] for r in records(folder)} == {
        "00000/0": "a red thing",
        "00000/1": "a green thing",
        "00001/0": "a blue thing",
    }
    said = "\n".join(json.loads((folder / "stats.json").read_text())["problems"])
    for problem in ("out of the archive", "a pickle", "comes twice", "was cut"):
        assert problem in said
    assert not (hostile.parent / "x.png").exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>" * 99, "not a plain tar file"),
        (b"\x1f\x8b" + bytes(600), "not a plain tar file: compressed: unpack it"),
    ],
)
def test_an_unreadable_shard_is_refused_or_left_out_and_named(
    capfilt, records, hostile, data, reason
):
    (hostile / "00001.tar").write_bytes(data)
    source = f"data.source={{name: webdataset, shards: {hostile}}}"
    with pytest.raises(DataError, match=f"00001.tar: {reason}.*missing_ok: true"):
        capfilt("out", source)
    folder = capfilt("tolerant", source, "data.source.missing_ok=true", "run.report=page.html")
    assert {r["key"] for r in records(folder)} == {"00000/0", "00000/1"}
    problems = json.loads((folder / "stats.json").read_text())["problems"]
    assert any("00001.tar" in one and reason in one and "left out" in one for one in problems)
    assert "00001.tar" in (folder / "page.html").read_text()


def test_a_shard_that_was_made_anew_is_another_input(capfilt, hostile):
    source = f"data.source={{name: webdataset, shards: {hostile}/00000.tar}}"
    capfilt("out", source)
    with (hostile / "00000.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ConfigError, match=r"files of data\.source"):
        capfilt("out", source)


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ("'pipe:touch MARK'", "are never run"),
        ("nowhere/00000.tar", "shards are missing"),
        ("[GOOD/00000.tar, GOOD/00007.tar]", "1 of 2 shards are missing"),
    ],
)
def test_commands_and_missing_shards_are_refused(capfilt, hostile, tmp_path, shards, message):
    mark = tmp_path / "mark"
    shards = shards.replace("MARK", str(mark)).replace("GOOD", str(hostile))
    with pytest.raises(DataError, match=message):
        capfilt("out", f"data.source={{name: webdataset, shards: {shards}}}")
    assert not mark.exists()


def test_the_shards_quarantine_is_no_file_of_records_and_its_earlier_name_is_read(tmp_path):
    from lavis_lite.projects.blip.capfilt.job import Folder

    folder = Folder(tmp_path)
    folder.shards.mkdir()
    assert not folder.quarantined(0).match("*.jsonl")
    earlier = folder.shards / "shard-000000.quarantine.jsonl"
    earlier.write_text("{}")
    assert folder.quarantined(0) == earlier
