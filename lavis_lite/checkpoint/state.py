"""Training state as plain types, so that it loads again with ``weights_only=True``."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import os
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lavis_lite.errors import CheckpointError

_KEPT = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def plain(item: object, where: str = "state") -> Any:
    """Return ``item`` as None, numbers, str, bytes, tensors and containers of these.

    NumPy scalars become numbers, arrays tensors (of str or objects: lists), paths and dates
    strings, timedeltas seconds, enums their values, namespaces and dataclasses dicts, named tuples
    tuples, frozen sets sets. Tensors are detached, on the CPU, and own only what they show.

    Raises:
        CheckpointError: another type, named by its place, such as ``state['hooks'][0]``.
    """
    if type(item) in _KEPT:
        return item
    if isinstance(item, Tensor):
        return _compact(item)
    for kind, convert in _CONVERSIONS:
        if isinstance(item, kind):
            return convert(item, where)
    raise CheckpointError(
        f"{where}: a {type(item).__module__}.{type(item).__qualname__} cannot be saved; "
        "keep numbers, str, tensors, lists and dicts in training state"
    )


def _compact(tensor: Tensor) -> Tensor:
    """Move to the CPU, without gradient; copy a small view, so that its storage is not saved."""
    tensor = tensor.detach().cpu()
    if tensor.layout is not torch.strided:
        return tensor
    used = tensor.numel() * tensor.element_size()
    return tensor if tensor.untyped_storage().nbytes() == used else tensor.clone()


def _mapping(item: Mapping, where: str) -> dict:
    return {plain(k, f"{where} key"): plain(v, f"{where}[{k!r}]") for k, v in item.items()}


def _list(item: Iterable[object], where: str) -> list:
    return [plain(value, f"{where}[{i}]") for i, value in enumerate(item)]


def _array(item: np.ndarray, where: str) -> Any:
    if item.dtype.kind not in "biufc":
        return _list(item.tolist(), where) if item.ndim else plain(item.item(), where)
    native = item.astype(item.dtype.newbyteorder("="))  # a copy, writable and contiguous
    try:
        return torch.from_numpy(np.ascontiguousarray(native).reshape(item.shape))
    except TypeError as error:  # longdouble and the like
        raise CheckpointError(f"{where}: {error}") from error


def _dataclass(item: Any, where: str) -> dict:
    return _mapping({f.name: getattr(item, f.name) for f in dataclasses.fields(item)}, where)


class _DataclassInstance(type):
    def __instancecheck__(cls, item: object) -> bool:
        return dataclasses.is_dataclass(item) and not isinstance(item, type)


class _AnyDataclass(metaclass=_DataclassInstance):
    """A type of which an instance of any dataclass is an instance."""


# The first fit counts: enums before the int or str that they may be, numpy scalars before float.
_CONVERSIONS: list[tuple[type | tuple[type, ...], Callable[[Any, str], Any]]] = [
    (enum.Enum, lambda item, where: plain(item.value, where)),
    (np.ndarray, _array),
    (np.generic, lambda item, where: plain(item.item(), where)),
    ((datetime.date, datetime.time), lambda item, where: item.isoformat()),
    (datetime.timedelta, lambda item, where: item.total_seconds()),
    (os.PathLike, lambda item, where: os.fspath(item)),
    (int, lambda item, where: int(item)),
    (float, lambda item, where: float(item)),
    (str, lambda item, where: str.__str__(item)),
    ((bytes, bytearray), lambda item, where: bytes(item)),
    ((argparse.Namespace, types.SimpleNamespace), lambda i, where: _mapping(vars(i), where)),
    (Mapping, _mapping),
    (tuple, lambda item, where: tuple(_list(item, where))),
    ((list, deque), _list),
    ((set, frozenset), lambda item, where: set(_list(item, where))),
    (_AnyDataclass, _dataclass),
]


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global generators, as plain types."""
    state = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()  # of this process's own device
    return plain(state)


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the generators from a state of `rng_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy(), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
