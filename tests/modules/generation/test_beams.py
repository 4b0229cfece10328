"""Beam search: exhaustive where it can be, transformers 4.15's ids where it cannot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation import generate


def every_score(
    logits: Tensor, longest: int, length_penalty: float
) -> dict[tuple[int, ...], float]:
    """Score of each text after the prompt (1,), end token left out, by going through all."""
    vocab = logits.shape[-1]
    end, scores = vocab - 1, {}
    for new in range(longest):
        for middle in itertools.product(range(end), repeat=new):
            text = (1, *middle)
            stops = [*text, end] if len(text) < longest else [*text]
            steps = itertools.pairwise(stops)
            total = sum(
                logits[place, last].log_softmax(-1)[token].item()
                for place, (last, token) in enumerate(steps, 1)
            )
            scores[text] = total / len(text) ** length_penalty
    return scores


@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(3, 4),
    longest=st.integers(2, 5),
    length_penalty=st.sampled_from([0.0, 1.0, 2.0]),
    end_bias=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_with_enough_beams_it_finds_the_best_of_all_texts(
    table: Callable[..., Any],
    seed: int,
    vocab: int,
    longest: int,
    length_penalty: float,
    end_bias: float,
) -> None:
    decoder = table(seed, 1, longest, vocab, end_bias)
    scores = every_score(decoder.logits[0], longest, length_penalty)
    count = min(4, len(scores))
    found = generate(
        decoder,
        torch.tensor([[1]]),
        num_beams=vocab**longest,
        num_return=count,
        max_length=longest,
        length_penalty=length_penalty,
        eos_id=vocab - 1,
        pad_id=0,
    )
    best = sorted(scores.values(), reverse=True)[:count]
    assert [scores[tuple(text)] for text in found] == pytest.approx(best, abs=1e-5)
    assert len({tuple(text) for text in found}) == count


@given(
    seed=st.integers(0, 10**6),
    num_beams=st.integers(2, 9),
    end_bias=st.sampled_from([0.0, 2.0, 4.0]),
)
@settings(max_examples=50, deadline=None)
def test_the_hypotheses_of_an_image_differ(
    table: Callable[..., Any], seed: int, num_beams: int, end_bias: float
) -> None:
    texts = generate(
        table(seed, 2, 9, 5, end_bias),
        torch.ones(2, 2).long(),
        num_beams=num_beams,
        num_return=num_beams,
        max_length=8,
        eos_id=4,
        pad_id=0,
    )
    for image in (texts[:num_beams], texts[num_beams:]):
        assert len({tuple(text) for text in image}) == num_beams


def test_more_texts_than_there_are_is_an_error(table: Callable[..., Any]) -> None:
    arguments = {"num_beams": 9, "max_length": 3, "eos_id": 4, "pad_id": 0}
    prompt = torch.ones(1, 2).long()
    texts = generate(table(0, 1, 4, 5), prompt, num_return=5, **arguments)
    assert sorted(texts) == [[1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3]]
    with pytest.raises(ConfigError, match="texts per image: 6; only 5 different ones"):
        generate(table(0, 1, 4, 5), prompt, num_return=6, **arguments)


@pytest.mark.fault(55)
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_one_beam_is_greedy(table: Callable[..., Any], penalty: float) -> None:
    arguments = {"max_length": 9, "eos_id": 6, "pad_id": 0, "repetition_penalty": penalty}
    prompt = torch.ones(5, 2).long()
    greedy = generate(table(3, 5, 10, 7, 1.0), prompt, method="greedy", **arguments)
    assert generate(table(3, 5, 10, 7, 1.0), prompt, num_beams=1, **arguments) == greedy


def test_greedy_takes_the_likeliest_token(table: Callable[..., Any]) -> None:
    decoder, last, text = table(4, 1, 9, 7), 1, [1]
    for length in range(1, 8):
        last = int(decoder.logits[0, length, last].argmax())
        if last == 6:
            break
        text.append(last)
    arguments = {"max_length": 8, "eos_id": 6, "pad_id": 0}
    assert generate(decoder, torch.tensor([[1]]), method="greedy", **arguments) == [text]


# Recorded with the BeamSearchScorer of transformers 4.15.0 on table(5, 2, 11, 12, 1.5): beams =
# returns, min_length, length penalty, repetition penalty -> ids without end and padding.
RECORDED = [
    ((3, 0, 1.0, 1.0), [[1, 2], [1, 2, 8], [1, 2, 8, 4],
                        [1, 2], [1, 2, 3, 7, 3], [1, 2, 9, 5]]),
    ((3, 6, 1.0, 1.0), [[1, 2, 8, 4, 8, 0, 7, 6, 8], [1, 2, 8, 4, 8, 0, 7, 6, 7, 2],
                        [1, 2, 8, 4, 8, 0, 7, 6], [1, 2, 8, 9, 0, 10, 4],
                        [1, 2, 8, 9, 0, 8, 4], [1, 2, 8, 9, 0, 10, 4, 7]]),
    ((2, 0, 2.0, 1.0), [[1, 2], [1, 2, 8], [1, 2, 8, 9, 0, 10, 4], [1, 2, 8, 9, 0, 10, 4, 7]]),
    ((4, 0, 1.0, 1.5), [[1, 2], [1, 2, 8], [1, 2, 8, 4], [1, 2, 8, 6, 5],
                        [1, 2], [1, 2, 3, 7, 3], [1, 2, 8, 7, 3], [1, 2, 9, 5]]),
    ((3, 0, -1.0, 1.0), [[1, 2], [1, 2, 8], [1, 2, 8, 4],
                         [1, 2], [1, 2, 9, 5], [1, 2, 3, 7, 3]]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "ids"), RECORDED)
def test_ids_are_those_of_transformers_4_15(
    table: Callable[..., Any], settings: tuple[int, int, float, float], ids: list[list[int]]
) -> None:
    num_beams, shortest, length_penalty, repetition_penalty = settings
    assert ids == generate(
        table(5, 2, 11, 12, 1.5),
        torch.tensor([[1, 2]] * 2),
        num_beams=num_beams,
        num_return=num_beams,
        max_length=10,
        min_length=shortest,
        length_penalty=length_penalty,
        repetition_penalty=repetition_penalty,
        eos_id=11,
        pad_id=0,
    )
