"""Training state survives a trip through a file that is read with weights_only=True."""

from __future__ import annotations

import argparse
import datetime
import enum
import io
import random
from collections import Counter, OrderedDict, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lavis_lite.checkpoint.state import plain, rng_state, set_rng_state
from lavis_lite.errors import CheckpointError


def through_a_file(state):
    file = io.BytesIO()
    torch.save(plain(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Color(enum.IntEnum):
    RED = 3


class Word(str):
    pass


@dataclass
class Point:
    x: int
    where: Path


Pair = namedtuple("Pair", "a b")


@pytest.mark.fault(26)
@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.float64(0.1), 0.1),
        (np.datetime64("2026-11-23"), "2026-11-23"),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([None, 1], dtype=object), [None, 1]),
        (Path("a/b.txt"), "a/b.txt"),
        (datetime.datetime(2026, 11, 23, 10, 5), "2026-11-23T10:05:00"),
        (datetime.timedelta(minutes=1), 60.0),
        (Color.RED, 3),
        (Word("hi"), "hi"),
        (Pair(1, Path("x")), (1, "x")),
        (Point(1, Path("y")), {"x": 1, "where": "y"}),
        (argparse.Namespace(lr=np.float32(0.5)), {"lr": 0.5}),
        (OrderedDict(a=Counter("aab")), {"a": {"a": 2, "b": 1}}),
        (deque([1, 2], maxlen=2), [1, 2]),
        (frozenset([1, 2]), {1, 2}),
        ({Color.RED: (1, [2, (3,)]), 5: None}, {3: (1, [2, (3,)]), 5: None}),
        (b"bytes", b"bytes"),
        (2**130, 2**130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_as_a_plain_one(saved, loaded):
    result = through_a_file({"it": saved})["it"]
    assert result == loaded
    assert type(result) is type(loaded)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint32", "bool", ">i4"])
def test_an_array_comes_back_as_an_equal_tensor(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)[:, ::2]
    result = through_a_file(array)
    assert torch.is_tensor(result)
    assert np.array_equal(result.numpy(), array)


def test_a_small_view_does_not_take_its_storage_along():
    large = torch.zeros(1_000_000)
    file = io.BytesIO()
    torch.save(plain({"corner": large[:3], "grad": torch.ones(2, requires_grad=True)}), file)
    assert file.tell() < 10_000


def test_what_cannot_be_saved_is_named_by_its_place():
    with pytest.raises(CheckpointError, match=r"state\['hooks'\]\[1\]: a builtins.function"):
        plain({"hooks": [1, lambda: None]})


def test_all_generators_go_on_where_they_were():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    generator = np.random.default_rng(5)
    saved = through_a_file({"all": rng_state(), "own": generator.bit_generator.state})
    first, own = draw(), generator.random()
    assert draw() != first
    set_rng_state(saved["all"])
    generator.bit_generator.state = saved["own"]
    assert draw() == first
    assert generator.random() == own
