"""Samples to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import default_collate

from lavis_lite.data.seeding import stable_hash

_LISTS = ("text_input", "key", "index")
_INT64 = range(-(2**63), 2**63)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One batch of B samples.

    `image`, or `image0` and `image1` (B, 3, S, S), of videos (B, F, 3, S, S); `image_id` (B,)
    int64, a str as a stable hash of it; `text_input`, `key` and `index` lists. `answers` and
    `weights`, lists in each sample, become LAVIS's `answer`, one list of all A answers, `weight`
    (A,) and `n_answers` (B,). Any other field: tensors, arrays and numbers stacked where all
    samples have one of the same shape, else a list, with None for a sample that has no such field.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    columns = {name: [sample.get(name) for sample in samples] for name in names}
    batch = _answers(columns)
    return {**batch, **{name: _column(name, values) for name, values in columns.items()}}


def image_number(image_id: int | str) -> int:
    """The int64 that stands for an image id in a batch."""
    plain = isinstance(image_id, int | numpy.integer) and int(image_id) in _INT64
    return int(image_id) if plain else stable_hash(str(image_id))


def _answers(columns: dict[str, list[Any]]) -> dict[str, Any]:
    """Takes several answers per sample out of the columns, as one flat list."""
    if not all(isinstance(value, list) for value in columns.get("answers", [None])):
        return {}
    answers, weights = columns.pop("answers"), columns.pop("weights", [])
    flat = [weight for one in weights for weight in one]
    return {
        "answer": [answer for one in answers for answer in one],
        "weight": torch.tensor(flat, dtype=torch.float32),
        "n_answers": torch.tensor([len(one) for one in answers], dtype=torch.int64),
    }


def _column(name: str, values: list[Any]) -> Any:
    if name in _LISTS:
        return values
    if name == "image_id":
        return torch.tensor([image_number(value) for value in values], dtype=torch.int64)
    if all(isinstance(value, numpy.ndarray) and value.dtype.kind in "biuf" for value in values):
        values = [torch.from_numpy(value) for value in values]
    if all(isinstance(value, torch.Tensor) for value in values):
        same = len({(value.shape, value.dtype) for value in values}) == 1
        # Stacks; in a loader process straight into the memory that it shares, which saves a copy.
        return default_collate(values) if same else values
    if all(isinstance(value, bool) for value in values):
        return torch.tensor(values)
    if all(_is_int64(value) for value in values):
        return torch.tensor(values, dtype=torch.int64)
    if all(isinstance(value, float) or _is_int64(value) for value in values):
        return torch.tensor(values, dtype=torch.float32)
    return values


def _is_int64(value: object) -> bool:
    return isinstance(value, int) and value in _INT64
