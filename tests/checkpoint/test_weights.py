"""Weight files are read from every source and dialect, and never run anything."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import struct
import sys
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.checkpoint.weights import read_metadata, read_weights, save_weights
from lavis_lite.errors import CheckpointError, DownloadError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def same(seen, wanted=WEIGHTS):
    return seen.keys() == wanted.keys() and all(torch.equal(seen[k], wanted[k]) for k in wanted)


# ---- sources


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "no_suffix"])
def test_a_safetensors_file_is_known_by_its_content(tmp_path, name):
    safetensors.torch.save_file(WEIGHTS, tmp_path / name)
    assert same(read_weights(tmp_path / name))


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_in_both_formats_and_their_wrappers(tmp_path, wrapper, zipped):
    content = WEIGHTS if wrapper is None else {wrapper: OrderedDict(WEIGHTS), "epoch": 3}
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(read_weights(path))


def test_inert_values_beside_the_tensors_are_allowed(tmp_path):
    extra = {
        "config": argparse.Namespace(lr=1e-4, output=pathlib.Path("out")),
        "best": np.float64(0.5),
        "counts": np.arange(3),
        "names": np.array(["a"]),
        "when": datetime.datetime(2022, 1, 1, tzinfo=datetime.UTC),
        "epoch": np.int64(3),
    }
    torch.save({"model": WEIGHTS, **extra}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth"))


def test_folders_are_searched_for_what_they_hold(tmp_path):
    model = nn.Linear(3, 2)
    path = Checkpointer(tmp_path / "run" / "checkpoints").save(5, model, {}, {})
    for source in (path, path.parent, tmp_path / "run", f"{tmp_path}/run/"):
        assert same(read_weights(source), model.state_dict())
    writers = {"model.safetensors": safetensors.torch.save_file, "pytorch_model.bin": torch.save}
    for name, write in writers.items():
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        write(WEIGHTS, folder / name)
        assert same(read_weights(folder))


def test_a_damaged_newest_checkpoint_of_a_run_is_passed_over(tmp_path):
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    for step in (1, 2):
        model = nn.Linear(1, 1)
        nn.init.constant_(model.bias, step)
        path = checkpointer.save(step, model, {}, {})
    os.truncate(path / "model.safetensors", 50)
    assert read_weights(tmp_path)["bias"] == 1
    with pytest.raises(CheckpointError, match="has 50 bytes, manifest"):
        read_weights(path)


def test_a_sharded_folder_is_joined_and_its_index_cannot_point_outside(tmp_path):
    for key, name in (("a.weight", "1.safetensors"), ("a.bias", "2.safetensors")):
        safetensors.torch.save_file({key: WEIGHTS[key]}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a.weight": "1.safetensors", "a.bias": "2.safetensors"}})
    )
    assert same(read_weights(tmp_path))
    index.write_text(json.dumps({"weight_map": {"a.weight": "../1.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"names '\.\./1.safetensors', which is not beside"):
        read_weights(tmp_path)


def test_a_folder_without_weights_says_what_it_has(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"holds neither checkpoints nor .* has notes.txt"):
        read_weights(tmp_path)


def test_a_missing_file_and_a_wrong_digest_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing.pth: No such file"):
        read_weights(tmp_path / "nothing.pth")
    torch.save(WEIGHTS, tmp_path / "w.pth")
    with pytest.raises(DownloadError, match=r"wanted 0{64}"):
        read_weights(tmp_path / "w.pth", sha256="0" * 64)


# ---- files that are not weights


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.fault(25)
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside", "alone"])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, zipped, place):
    marker = tmp_path / "ran"
    bad = Malicious(marker)
    content = {
        "beside": {"model": WEIGHTS, "config": bad},
        "inside": {**WEIGHTS, "b": bad},
        "alone": bad,
    }[place]
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w.pth: refused, it contains posix.system.*code"):
        read_weights(tmp_path / "w.pth")
    assert not marker.exists()


class Config:
    pass


@pytest.mark.fault(25)
def test_a_whole_module_or_an_unknown_class_is_refused_by_name(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"refused, it contains torch.nn.*Linear"):
        read_weights(tmp_path / "module.pth")
    sys.modules.setdefault(Config.__module__, sys.modules[__name__])
    torch.save({"model": WEIGHTS, "config": Config()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"refused, it contains .*Config"):
        read_weights(tmp_path / "w.pth")


def test_a_torchscript_archive_is_refused_and_says_how_to_take_its_weights_out(tmp_path):
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), tmp_path / "ViT.pt")
    with pytest.raises(CheckpointError, match=r"ViT.pt: is a TorchScript.*\.state_dict\(\)"):
        read_weights(tmp_path / "ViT.pt")
    state = torch.jit.load(tmp_path / "ViT.pt").state_dict()  # as the message says
    torch.save(state, tmp_path / "weights.pt")
    assert list(read_weights(tmp_path / "weights.pt")) == ["weight", "bias"]


def write_bomb(folder):
    """``w.pth``: 40 MB of zeros that torch saved, packed."""
    torch.save({"a": torch.zeros(40_000_000, dtype=torch.uint8)}, folder / "honest.pth")
    with (
        zipfile.ZipFile(folder / "honest.pth") as honest,
        zipfile.ZipFile(folder / "w.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in honest.infolist():
            bomb.writestr(member.filename, honest.read(member))


@pytest.mark.fault(39)
def test_a_torch_file_that_is_a_zip_bomb_is_refused(tmp_path):
    write_bomb(tmp_path)
    assert (tmp_path / "w.pth").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"w.pth: unpacks to .* as a decompression bomb"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.fault(39)
def test_a_bomb_whose_list_only_torch_can_read_is_refused(tmp_path):
    write_bomb(tmp_path)
    data = bytearray((tmp_path / "w.pth").read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255  # the version that is needed to unpack it
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is not a whole torch file: zip file version"):
        read_weights(tmp_path / "w.pth")


def test_reading_leaves_no_type_allowed_for_others(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch lists a set, in any order
    torch.save(WEIGHTS, tmp_path / "w.pth")
    read_weights(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "Git LFS pointer"),
        (b"just a text", r"neither a safetensors nor a torch file; it starts with b'just a text'"),
        (b"\x80\x02}q\x00", "is not a whole torch file"),
        (b"\x80\x02\xff\xff", "is not a whole torch file"),
        (b"PK\x03\x04 and no more", "is not a whole torch file"),
    ],
    ids=["empty", "html", "lfs", "text", "cut pickle", "bad pickle", "cut zip"],
)
def test_what_is_no_weight_file_says_what_it_is(tmp_path, content, complaint):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("write", ["zip", "legacy"])
def test_a_name_that_is_too_long_is_refused_at_once(tmp_path, write, monkeypatch):
    # torch would refuse it as well, after minutes: it searches a message that the name is in.
    named = type("x" * 200_000, (), {"__module__": "torch"})
    monkeypatch.setattr(torch, named.__name__, named, raising=False)
    path = tmp_path / "w.pt"
    torch.save({**WEIGHTS, "more": named()}, path, _use_new_zipfile_serialization=write == "zip")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch reads it"))
    with pytest.raises(CheckpointError, match=r"w\.pt: .* a name of 200,006 characters"):
        read_weights(path)


@pytest.mark.parametrize("write", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_cut_file_is_refused(tmp_path, write, fraction):
    path = tmp_path / f"w.{write}"
    if write == "safetensors":
        safetensors.torch.save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=write == "zip")
    os.truncate(path, int(path.stat().st_size * fraction))
    with pytest.raises(CheckpointError, match=r"w\.\w+: (is empty|is not a whole)"):
        read_weights(path)


def header(tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 8


def entry(start, stop, dtype="F32", shape=(1,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.fault(27)
@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 100 << 30) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        header({"a": entry(0, 4), "b": entry(2, 6)}),
        header({"a": entry(0, 4), "b": entry(4, 1 << 40)}),
        header({"a": entry(0, 8, shape=(1 << 40,))}),
        header({"a": entry(8, 0)}),
        header({"a": entry(0, 8, dtype="PICKLE")}),
        header({"a": entry(0, 8, shape=(2**62, 2**62))}),
        b'\x10\0\0\0\0\0\0\0{"a":' + b"[" * 500,
    ],
    ids=["100 GB", "2^64", "overlap", "beyond", "shape", "negative", "dtype", "overflow", "nested"],
)
def test_an_attack_on_the_safetensors_header_is_refused_at_once(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        read_weights(tmp_path / "w.safetensors")
    assert time.monotonic() - start < 30  # not after reading or reserving what it claims


@pytest.mark.parametrize("content", [[WEIGHTS["a.bias"]], {"model": {}}, {"epoch": 3}, "text"])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds no tensors|not a mapping of tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("aliases", ['{"b": "nowhere"}', '["a"]', "not json", '{"b": ["a"]}'])
def test_aliases_of_a_stranger_are_checked(tmp_path, aliases):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, {"lavis_lite.aliases": aliases})
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        read_weights(path)


# ---- writing


def test_saved_weights_hold_shared_tensors_once_and_views_whole(tmp_path):
    model = nn.ModuleDict({"a": nn.Linear(50, 50), "b": nn.Linear(50, 50)})
    model["b"].weight = model["a"].weight
    base = torch.arange(20.0)
    state = model.state_dict() | {"left": base[:10], "right": base[5:], "t": base.view(4, 5).T}
    path = save_weights(state, tmp_path / "deep" / "w.safetensors", {"seed": 3, "cfg": "a: 1"})
    assert same(read_weights(path), state)
    assert path.stat().st_size < 50 * 50 * 4 + 2000
    assert read_metadata(path) == {"seed": "3", "cfg": "a: 1"}
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_weights(WEIGHTS, tmp_path / "w.safetensors")

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        save_weights({}, path)
    assert same(read_weights(path))
    assert len(list(tmp_path.iterdir())) == 1
