"""Nucleus sampling: which tokens can be drawn, how often, and what decides a draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lavis_lite.modules.generation import generate, sampling
from lavis_lite.modules.generation.sampling import sample

EVEN = (torch.arange(10_000) + 0.5) / 10_000  # a draw for each of ten thousand even parts


def shares(probabilities: list[float], **options: Any) -> list[float]:
    """How much of the unit interval draws each token."""
    rows = torch.tensor(probabilities).expand(len(EVEN), -1)
    drawn = sample(rows, EVEN, **options)
    return (torch.bincount(drawn, minlength=len(probabilities)) / len(EVEN)).tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_p": 1.0}, [0.1, 0.5, 0.15, 0.25]),
        ({"top_p": 0.9}, [0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9]),  # 0.5 + 0.25 < 0.9
        ({"top_p": 0.7}, [0.0, 2 / 3, 0.0, 1 / 3]),
        ({"top_p": 0.4}, [0.0, 1.0, 0.0, 0.0]),
        ({"top_p": 1e-6}, [0.0, 1.0, 0.0, 0.0]),
        ({"top_p": 1.0, "top_k": 2}, [0.0, 2 / 3, 0.0, 1 / 3]),
        ({"top_p": 0.6, "top_k": 2}, [0.0, 1.0, 0.0, 0.0]),  # 2/3 after top_k
        ({"top_p": 1.0, "top_k": 9}, [0.1, 0.5, 0.15, 0.25]),
    ],
)
def test_tokens_are_drawn_in_proportion_within_the_nucleus(
    options: dict, expected: list[float]
) -> None:
    assert shares([0.1, 0.5, 0.15, 0.25], **options) == pytest.approx(expected, abs=2e-4)


def test_a_wide_nucleus_is_drawn_from_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = torch.rand(400, 300).pow(4)
    probabilities[::2, 0] += 60.0  # half of the rows are narrow
    probabilities /= probabilities.sum(-1, keepdim=True)
    uniform = torch.rand(400)
    monkeypatch.setattr(sampling, "HEAD", 300)
    whole = sample(probabilities, uniform, 0.95)
    monkeypatch.setattr(sampling, "HEAD", 20)
    assert torch.equal(sample(probabilities, uniform, 0.95), whole)
    assert len(set(whole[1::2].tolist())) > 60


def test_equally_likely_tokens_are_drawn_equally_often() -> None:
    rows = torch.full((1000,), 1e-3).expand(len(EVEN), -1)
    drawn = torch.bincount(sample(rows, EVEN, 1.0), minlength=1000)
    assert int(drawn.min()) >= 8
    assert int(drawn.max()) <= 12


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_stay_within_the_nucleus(uniform: float) -> None:
    probabilities = torch.rand(50, 40).softmax(-1)
    drawn = sample(probabilities, torch.full((50,), uniform), 0.5)
    kept = [in_nucleus(row, 0.5) for row in probabilities]
    assert all(token in allowed for token, allowed in zip(drawn.tolist(), kept, strict=True))


def in_nucleus(row: Tensor, top_p: float) -> set[int]:
    order, mass, kept = row.argsort(descending=True).tolist(), 0.0, set()
    for token in order:
        if mass < top_p:
            kept.add(token)
        mass += row[token].item()
    return kept


def texts(table: Callable[..., Any], **options: Any) -> list[list[int]]:
    arguments = {"max_length": 12, "eos_id": 19, "pad_id": 0, "method": "nucleus", **options}
    return generate(table(0, 3, 13, 20), torch.ones(3, 1).long(), **arguments)


def test_a_seed_decides_the_text(table: Callable[..., Any]) -> None:
    assert texts(table, seeds=[1, 2, 3]) == texts(table, seeds=[1, 2, 3])
    assert texts(table, seeds=[1, 2, 3]) != texts(table, seeds=[4, 5, 6])


def test_without_seeds_torchs_generator_decides(table: Callable[..., Any]) -> None:
    torch.manual_seed(5)
    first, second = texts(table), texts(table)
    torch.manual_seed(5)
    assert texts(table) == first
    assert first != second


def test_another_text_of_an_image_leaves_its_first_ones_alone(table: Callable[..., Any]) -> None:
    two, three = (texts(table, seeds=[1, 2, 3], num_return=count) for count in (2, 3))
    for image in range(3):
        assert two[2 * image : 2 * image + 2] == three[3 * image : 3 * image + 2]
    assert len({tuple(text) for text in three[:3]}) == 3


def test_a_longer_limit_only_goes_on(table: Callable[..., Any]) -> None:
    short, long = (texts(table, seeds=[1, 2, 3], max_length=n) for n in (6, 12))
    assert all(b[:6] == a for a, b in zip(short, long, strict=True))


def test_a_low_temperature_is_greedy(table: Callable[..., Any]) -> None:
    cold = texts(table, temperature=1e-3, top_p=1.0, seeds=[1, 2, 3])
    assert cold == texts(table, method="greedy")


def test_texts_come_as_often_as_they_are_likely(table: Callable[..., Any]) -> None:
    decoder = table(7, 1, 3, 4)
    first = decoder.logits[0, 1, 1].softmax(-1)
    second = decoder.logits[0, 2].softmax(-1)
    count = 4000
    drawn = generate(
        decoder, torch.tensor([[1]]), method="nucleus", top_p=1.0, num_return=count, max_length=3,
        eos_id=3, pad_id=0, seeds=[0],
    )  # fmt: skip
    for text, expected in (([1], first[3]), ([1, 2], first[2] * second[2, 3])):
        share = sum(one == text for one in drawn) / count
        assert share == pytest.approx(expected.item(), abs=4 * np.sqrt(0.25 / count))
