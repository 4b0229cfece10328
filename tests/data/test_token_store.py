"""Tokens on disk: whole or absent, computed once by whoever shares the folder, never mistaken."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time

import pytest
import torch
from PIL import Image

from lavis_lite.data import token_store
from lavis_lite.data.stored_images import StoredImages, image_digest
from lavis_lite.data.token_store import DamagedTokens, TokenStore
from lavis_lite.errors import ConfigError, DataError

ABOUT = {"encoder": "Vit", "encoder weights": "abc", "processor": {"name": "eval", "image_size": 8}}
FORK = multiprocessing.get_context("fork")


def store_at(folder, about=None, **changes):
    options = {"shape": (3, 4), "crops": 2, "dtype": "fp32", **changes}
    return TokenStore(folder, {**ABOUT, **(about or {})}, **options)


def tokens(count, seed=0):
    return torch.randn(count, 2, 3, 4, generator=torch.Generator().manual_seed(seed))


def test_tokens_come_back_as_they_were_put(tmp_path):
    store, written = store_at(tmp_path), tokens(3)
    places = store.places([b"a", b"b", b"c", b"a"]).tolist()
    assert places[0] == places[3]
    assert len(set(places)) == 3
    store.put(places[:3], written)
    again = store_at(tmp_path)
    assert again.places([b"c", b"a"]).tolist() == [places[2], places[0]]
    again.load(places)
    for place, crops in zip(places, written, strict=False):
        assert torch.equal(torch.stack([again.read(place, k) for k in range(2)]), crops)


@pytest.mark.parametrize(("dtype", "bits"), [("fp16", 11), ("bf16", 8)])
def test_half_precision_keeps_as_many_bits_as_it_has(tmp_path, dtype, bits):
    store, written = store_at(tmp_path, dtype=dtype), tokens(1)
    (place,) = store.places([b"a"]).tolist()
    store.put([place], written)
    store.load([place])
    read = store.read(place, 1)
    assert read.dtype == token_store.DTYPES[dtype]
    assert (read.float() - written[0, 1]).abs().div(written[0, 1].abs()).max() <= 2**-bits
    assert store.tokens_file.stat().st_size == 2 * 3 * 4 * 2


def test_numbers_too_large_for_the_dtype_are_refused(tmp_path):
    store = store_at(tmp_path, dtype="fp16")
    with pytest.raises(ConfigError, match="no finite fp16; use dtype: bf16 or fp32"):
        store.put(store.places([b"a"]).tolist(), tokens(1) * 1e6)
    assert store.filled([0]) == set()


@pytest.mark.parametrize(
    ("about", "options", "line"),
    [
        ({"encoder": "Swin"}, {}, 'encoder: "Vit" was, "Swin" is now'),
        ({"encoder weights": "xyz"}, {}, 'encoder weights: "abc" was, "xyz" is now'),
        ({"processor": {"name": "eval", "image_size": 16}}, {}, r'"image_size": 16.* is now'),
        ({}, {"shape": (5, 4)}, r"shape: \[3, 4\] was, \[5, 4\] is now"),
        ({}, {"crops": 4}, "crops: 2 was, 4 is now"),
        ({}, {"dtype": "fp16"}, 'dtype: "fp32" was, "fp16" is now'),
    ],
)
def test_tokens_of_another_kind_are_refused_by_what_differs(tmp_path, about, options, line):
    store_at(tmp_path)
    with pytest.raises(ConfigError, match=line) as caught:
        store_at(tmp_path, about, **options)
    assert "or delete this one: its tokens are computed anew" in str(caught.value)
    assert str(caught.value).count(" was, ") == 1


def test_another_version_of_the_format_is_refused(tmp_path):
    store_at(tmp_path)
    with sqlite3.connect(tmp_path / "index.sqlite") as index:
        index.execute("PRAGMA user_version = 7")
    with pytest.raises(ConfigError, match=r"version 7 of the format; .* reads version 1"):
        store_at(tmp_path)


def test_altered_bytes_are_refused_with_their_place(tmp_path):
    store = store_at(tmp_path)
    places = store.places([b"a", b"b"]).tolist()
    store.put(places, tokens(2))
    with store.tokens_file.open("r+b") as file:
        file.seek(places[1] * 96 + 50)
        file.write(b"\xff")
    store.load(places)
    store.read(places[0], 0)
    with pytest.raises(DamagedTokens, match=r"byte 144 \(image 1, crop 1\): checksum .* delete"):
        store.read(places[1], 1)


def test_a_file_that_lost_its_end_is_refused(tmp_path):
    store = store_at(tmp_path)
    store.put(store.places([b"a", b"b"]).tolist(), tokens(2))
    os.truncate(store.tokens_file, 100)
    with pytest.raises(DamagedTokens, match="192 bytes were written, 100 are there now"):
        store_at(tmp_path)


def test_an_index_that_is_none_is_refused(tmp_path):
    store_at(tmp_path)
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(DamagedTokens, match=r"index\.sqlite: damaged .* delete this one"):
        store_at(tmp_path)


def test_a_disk_without_room_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    store = store_at(tmp_path)
    store.demand_room(1000)
    usage = type("Usage", (), {"free": 90_000})
    monkeypatch.setattr(token_store.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match=r"1,000 images need 93\.8 KiB, and 87\.9 KiB are free"):
        store.demand_room(1000)


def hold_claim(folder, pipe):
    store = store_at(folder)
    pipe.send([store.claim(0), store.claim(1)])
    time.sleep(60)


def test_a_place_is_claimed_by_one_process_until_that_ends(tmp_path):
    store = store_at(tmp_path)
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold_claim, args=(tmp_path, theirs))
    process.start()
    assert ours.recv() == [True, True]
    assert not store.claim(0)
    assert store.claim(2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert store.claim(0)


def put_until_killed(folder):
    store = store_at(folder)
    places = store.places([bytes([n]) for n in range(200)]).tolist()
    for place in places:
        store.put([place], tokens(1, seed=place))


def test_what_was_written_before_a_kill_is_whole_and_stays(tmp_path):
    process = FORK.Process(target=put_until_killed, args=(tmp_path,))
    process.start()
    places = range(200)
    while process.is_alive() and len(store_at(tmp_path).filled(places)) < 5:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    store = store_at(tmp_path)
    filled = store.filled(places)
    assert len(filled) >= 5
    store.load(filled)
    for place in filled:
        assert torch.equal(store.read(place, 1), tokens(1, seed=place)[0, 1])


# ---- images of datasets


class Rows:
    """Rows of pictures by path; the last one is missing."""

    def __init__(self, folder, count=4):
        self.paths = [str(folder / f"{n}.png") for n in range(count)]
        for number, path in enumerate(self.paths):
            Image.new("RGB", (6, 6), (number // 2, 0, 0)).save(path)  # each picture twice

    def __len__(self):
        return len(self.paths) + 1

    def __getitem__(self, index):
        path = self.paths[index] if index < len(self.paths) else "nowhere.png"
        return {"image": path, "text_input": f"{index}", "image_id": index, "key": f"{index}"}


def test_equal_images_are_one_whatever_their_paths(tmp_path):
    stored = StoredImages([Rows(tmp_path)], lambda tokens: tokens)
    missing = stored.find(store_at(tmp_path / "store"))
    assert [one.row for one in missing] == [0, 2]
    assert [stored.row(0, row)["image"] for row in range(4)] == [0, 0, 1, 1]
    assert stored.row(0, 3)["text_input"] == "3"
    with pytest.raises(DataError, match=r"missing file: .*nowhere\.png"):
        stored.row(0, 4)


def test_a_file_that_changed_is_another_image_and_others_are_not_read_again(tmp_path):
    rows, store = Rows(tmp_path), store_at(tmp_path / "store")
    StoredImages([rows], lambda tokens: tokens).find(store)
    Image.new("RGB", (6, 6), (0, 99, 0)).save(rows.paths[0])
    os.utime(rows.paths[0], ns=(1, 1))
    for path in rows.paths[1:]:  # the same size and time, and nothing that could be hashed
        status = os.stat(path)
        os.truncate(path, 0)
        os.truncate(path, status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    stored = StoredImages([rows], lambda tokens: tokens)
    missing = stored.find(store)
    assert [stored.row(0, row)["image"] for row in range(4)] == [2, 0, 1, 1]
    assert {one.place for one in missing} == {0, 1, 2}


def test_how_an_image_is_decoded_is_a_part_of_what_it_is():
    digests = {image_digest(b"bytes", decoder, {}, {}) for decoder in ("decode", "decode exif")}
    assert len(digests) == 2


def test_frames_of_a_video_are_refused():
    with pytest.raises(ConfigError, match=r"several frames.* leave data\.vision_tokens out"):
        image_digest([b"one", b"two"], "decode", {}, {})
