"""Good archives and weight files of all kinds that are read, to be damaged."""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import torch
from fuzz_targets import Target

from lavis_lite.checkpoint.weights import read_weights, save_weights
from lavis_lite.data.files.unpack import unpack

MEMBERS = {"train/0.jpg": b"jpeg " * 300, "train/deep/1.jpg": b"", "captions.txt": b"a wall\n"}
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def write_archives(folder: Path) -> list[Target]:
    """Zips and tars, to be unpacked."""
    folder.mkdir(parents=True)
    targets = []
    for name, method in METHODS.items():
        path = folder / f"{name}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, data in MEMBERS.items():
                archive.writestr(member, data)
        targets.append(Target(f"unpack: zip, {name}", path, "zip", read=read_archive))
    for packed in ("", ".gz", ".bz2", ".xz"):
        path = folder / f"members.tar{packed}"  # written plain: the target packs it
        with tarfile.open(path, "w") as tar:
            for member, data in MEMBERS.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        targets.append(
            Target(f"unpack: tar{packed}", path, "tar", packed=packed, read=read_archive)
        )
    return targets


def read_archive(path: Path) -> None:
    """Unpack it; whatever happens, nothing is written but into its folder, and all or nothing."""
    around = path.parent / "around"
    target = around / "deep" / "target"
    target.mkdir(parents=True)
    before = set(path.parent.rglob("*"))
    try:
        found = unpack(path, target)
        inside = set(path.parent.rglob("*")) - before
        assert {one for one in inside if one.parent == target} == set(found)
    except Exception:
        assert set(path.parent.rglob("*")) == before, "a refused archive left something"
        raise
    finally:
        shutil.rmtree(around)
    assert all(one.is_relative_to(target) for one in inside), "written outside of the folder"


def write_weights(folder: Path) -> list[Target]:
    """Weights as safetensors and as torch writes and wrote them, alone and among other things."""
    folder.mkdir(parents=True)
    shared = torch.arange(12.0).reshape(3, 4)
    state = {"a.weight": shared, "b.weight": shared, "bias": torch.ones(3, dtype=torch.bfloat16)}
    extras = {"model": state, "epoch": 3, "args": argparse.Namespace(lr=0.1, name="x")}
    save_weights(state, folder / "shared.safetensors", {"config": {"name": "x"}})
    torch.save(state, folder / "state.pt")
    torch.save(extras, folder / "wrapped.pth")
    torch.save(extras, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    kinds = {".safetensors": "safetensors", ".bin": "bytes"}
    return [
        Target(f"weights: {path.name}", path, kinds.get(path.suffix, "zip"), read=check_weights)
        for path in sorted(folder.iterdir())
    ]


def check_weights(path: Path) -> None:
    """Read them to names and tensors."""
    for name, tensor in read_weights(path).items():
        assert isinstance(name, str)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.device.type == "cpu"
