"""Weight files: read from any source without running code in them, written whole."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lavis_lite.checkpoint.load_state import (
    LoadReport,
    WithoutDrawing,
    bare,
    load_state,
    unique_tensors,
)
from lavis_lite.checkpoint.locate import Origin, find_weights
from lavis_lite.checkpoint.pickled import check_names, zip_members
from lavis_lite.errors import CheckpointError
from lavis_lite.io.files import whole_file

__all__ = [
    "LoadReport",
    "build_with_weights",
    "load_state",
    "load_weights",
    "read_metadata",
    "read_weights",
    "save_weights",
    "write_safetensors",
]

_ALIASES = "lavis_lite.aliases"  # in a safetensors file's metadata: JSON of alias -> key
_MAX_RATIO = 100
_FREE_BYTES = 16 << 20
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module")

# Types that published checkpoints carry beside their tensors. Building one runs nothing but its
# own constructor, on plain values.
_SCALAR = np.float64(0).__reduce__()[0]
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_INERT: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"},
    *[(_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")],
    *[(_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")],
    *[
        (getattr(pathlib, f"Pure{name}"), f"{module}.{prefix}{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
        for prefix in ("", "Pure")
    ],
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
]


# ---------------------------------------------------------------------------------- read


def read_weights(source: str | Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read weights from any source as key -> tensor on the CPU.

    Args:
        source: a path, URL or ``hf://owner/repo/file`` of a .safetensors, .pth, .pt or .bin file
            (also wrapped as ``{"model": ...}``), a step directory, the output folder of a run
            (its newest whole checkpoint), a folder with ``model.safetensors``, or a repository of
            the hub (``owner/repo``).
        sha256: of the file, where known.

    Raises:
        CheckpointError: not there, not weights, damaged, or refused as it holds more than data.
        DownloadError: could not be fetched.
    """
    return _read(find_weights(source, sha256))


def load_weights(model: nn.Module, source: str | Path, sha256: str | None = None) -> LoadReport:
    """Read weights and load them into a model, strictly.

    Args:
        model: as of ``load_state``. Its ``check_config(config, source)``, where it has one, gets
            the ``config.json`` of the folder or repository that the weights come from.
        source: as of ``read_weights``.
        sha256: of the file, where known.

    Raises:
        CheckpointError: no weights, or they don't fit; the model is as it was.
        DownloadError: could not be fetched.
    """
    return load_state(model, _find(model, source, sha256), source=str(source))


def build_with_weights(
    build: Callable[[], Any], source: str | Path, sha256: str | None = None
) -> tuple[Any, LoadReport]:
    """Build a model with the weights of a file, without drawing random weights in vain.

    Args:
        build: builds the model.
        source: as of ``read_weights``.
        sha256: of the file, where known.

    Raises:
        CheckpointError: no weights, or they don't fit.
        DownloadError: could not be fetched.
    """
    with WithoutDrawing():
        model = build()
    weights = _find(model, source, sha256)
    if not _fills(model, weights):
        model = build()  # part of it may start anew
    return model, load_state(model, weights, source=str(source))


def _fills(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Tell whether weights have all of a model's tensors but those that it has from elsewhere."""
    elsewhere = tuple(getattr(model, "kept_elsewhere", ()))
    if elsewhere:  # large files, worth a second look under the names that the model will get
        weights = cast(Any, model).rename_weights(dict(weights))
    return all(
        (key in weights and weights[key].shape == tensor.shape)
        or (elsewhere and key.startswith(elsewhere))
        for key, tensor in model.state_dict().items()
    )


def _find(model: nn.Module, source: str | Path, sha256: str | None) -> dict[str, Tensor]:
    """Read the weights of a source after the model has checked the config beside them."""
    origin = find_weights(source, sha256)
    check_config = getattr(bare(model), "check_config", None)
    if origin.config is not None and check_config is not None:
        check_config(origin.config, str(source))
    return _read(origin)


def _read(origin: Origin) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in origin.files:
        weights.update(_read_file(file))
    if not weights:
        raise CheckpointError(f"{origin.files[0]}: holds no tensors")
    return weights


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, as it was given to `save_weights`."""
    with _safetensors(Path(path)) as file:
        return {k: v for k, v in (file.metadata() or {}).items() if k != _ALIASES}


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    start = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path}: is empty")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path}: is a web page, not weights; its link may need a login")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull`")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _read_pickled(path)
    raise CheckpointError(
        f"{path}: is neither a safetensors nor a torch file; it starts with {head[:12]!r}"
    )


@contextlib.contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: is not a whole safetensors file: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with _safetensors(path) as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    if not isinstance(aliases, dict) or not all(
        isinstance(key, str) and key in weights for key in aliases.values()
    ):
        raise CheckpointError(f"{path}: its aliases name tensors that it does not have")
    return weights | {alias: weights[key] for alias, key in aliases.items()}


def _read_pickled(path: Path) -> dict[str, Tensor]:
    members = zip_members(path)
    bomb = sum(member.file_size for member in members)
    if bomb > max(_FREE_BYTES, _MAX_RATIO * path.stat().st_size):
        raise CheckpointError(
            f"{path}: unpacks to {bomb:,} bytes, more than {_MAX_RATIO} times its size, as a "
            "decompression bomb does; weights are not compressed"
        )
    # What `torch.jit.save` writes, also as some published `.pt`.
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise CheckpointError(
            f"{path}: is a TorchScript archive, a program with its weights, and programs are not "
            "run here. Take the weights out where you trust the file: "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pt')"
        )
    check_names(path, members)
    try:
        with torch.serialization.safe_globals(_INERT):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(f"{path}: {_why_not(error)}") from error
    while isinstance(content, Mapping):
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return {str(k): v.detach() for k, v in content.items() if isinstance(v, Tensor)}
        content = inner
    raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a mapping of tensors")


def _why_not(error: Exception) -> str:
    """Return torch's refusal in one line, without its advice to allow the refused code."""
    text = str(error)
    refused = re.search(r"unsupported (?:global: )?GLOBAL (\S+)", text, flags=re.IGNORECASE)
    if refused or re.search("Can only (create|build)|Trying to call reduce", text):
        return (
            f"refused, it contains {refused[1] if refused else 'more than data'}: only tensors and "
            "plain values are read, as anything else could run code; ask for the weights as "
            "safetensors"
        )
    inner = re.search(r"WeightsUnpickler error: (.*)", text)
    reason = inner[1] if inner else (text.splitlines() or [type(error).__name__])[0]
    return f"is not a whole torch file: {reason[:200]}"


# --------------------------------------------------------------------------------- write


def save_weights(
    model: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model's weights as one safetensors file, each shared tensor once.

    Args:
        model: a module (wrapped or not) or its state dict.
        path: of the file; its folder is made. What was there is replaced only by a whole file.
        metadata: values that are not str are written as JSON.
    """
    path = Path(path)
    with whole_file(path) as temporary:
        write_safetensors(model, temporary, metadata)
    return path


def write_safetensors(
    model: nn.Module | Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write the file in place and return its aliases: alias -> the key that holds the tensor."""
    state = bare(model).state_dict() if isinstance(model, nn.Module) else model
    tensors, aliases = unique_tensors(state)
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    notes[_ALIASES] = json.dumps(aliases)
    path.touch()
    mode = path.stat().st_mode
    safetensors.torch.save_file(_apart(tensors), path, notes)
    os.chmod(path, mode)  # it makes a new file that only its owner may read
    return aliases


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors in separate storages: the format has no overlapping views."""
    seen: set[int] = set()
    result = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        result[key] = tensor
    return result
