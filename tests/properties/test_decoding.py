"""Written texts, of any table of logits: greedy by hand, one beam, and the best of all."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lavis_lite.modules.generation import generate


class Table:
    """Logits by image, place and last token, (B, L, V, V); the last token ends a text."""

    def __init__(self, seed: int, images: int, longest: int, vocab: int, end_bias: float) -> None:
        shape = (images, longest + 1, vocab, vocab)
        logits = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        logits[..., -1] += end_bias
        self.logits = torch.from_numpy(logits)

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        self.rows = torch.arange(len(prompt))
        self.tokens = prompt[:, None].expand(-1, num_texts, -1)
        return self.look_up()[:, 0]

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        if parents is not None:
            chosen = parents[..., None].expand(-1, -1, self.tokens.shape[-1])
            self.tokens = self.tokens.gather(1, chosen)
        self.tokens = torch.cat([self.tokens, ids[..., None]], dim=-1)
        return self.look_up()

    def keep(self, rows: Tensor) -> None:
        self.rows, self.tokens = self.rows[rows], self.tokens[rows]

    def look_up(self) -> Tensor:
        return self.logits[self.rows[:, None], self.tokens.shape[-1], self.tokens[..., -1]]


CASES: dict[str, Any] = {
    "seed": st.integers(0, 10**6),
    "vocab": st.integers(3, 9),
    "longest": st.integers(2, 7),
    "shortest": st.integers(0, 7),
    "end_bias": st.sampled_from([-1.0, 0.0, 2.0]),
}


def write(table: Table, longest: int, shortest: int, images: int = 3, **options: Any) -> Any:
    end = table.logits.shape[-1] - 1
    lengths = {"max_length": longest, "min_length": min(shortest, longest)}
    prompt = torch.ones(images, 1, dtype=torch.long)
    return generate(table, prompt, eos_id=end, pad_id=0, **lengths, **options)


@given(**CASES)
def test_greedy_and_one_beam_take_the_likeliest_token_each_time(
    seed: int, vocab: int, longest: int, shortest: int, end_bias: float
) -> None:
    table = Table(seed, 3, longest, vocab, end_bias)
    expected = []
    for image in range(3):
        text = [1]
        while len(text) < longest:
            logits = table.logits[image, len(text), text[-1]].clone()
            if len(text) < min(shortest, longest):
                logits[-1] = -torch.inf
            if (best := int(logits.argmax())) == vocab - 1:
                break
            text.append(best)
        expected.append(text)
    assert write(table, longest, shortest, method="greedy") == expected
    assert write(table, longest, shortest, num_beams=1) == expected


@given(**CASES, beams=st.integers(1, 4), method=st.sampled_from(["beam", "nucleus"]))
def test_lengths_hold_and_nothing_follows_the_end(
    seed: int, vocab: int, longest: int, shortest: int, end_bias: float, beams: int, method: str
) -> None:
    options: dict[str, Any] = {"method": method, "seeds": [1, 2, 3]}
    if method == "beam":
        options = {"num_beams": beams}
    texts = write(Table(seed, 3, longest, vocab, end_bias), longest, shortest, **options)
    assert len(texts) == 3
    for text in texts:
        assert text[0] == 1
        assert max(1, min(shortest, longest)) <= len(text) <= longest
        assert vocab - 1 not in text
        assert all(0 <= token < vocab for token in text)


@given(
    seed=st.integers(0, 10**6),
    longest=st.integers(2, 4),
    shortest=st.integers(0, 4),
    end_bias=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=25)
def test_enough_beams_find_the_best_of_all_texts_that_are_long_enough(
    seed: int, longest: int, shortest: int, end_bias: float
) -> None:
    vocab, table = 4, Table(seed, 1, longest, 4, end_bias)
    scores = {}
    for new in range(longest):
        for middle in itertools.product(range(vocab - 1), repeat=new):
            text = [1, *middle]
            if len(text) >= min(shortest, longest):
                scores[tuple(text)] = score(table.logits[0], text, longest, min(shortest, longest))
    best = max(scores.values())
    (found,) = write(table, longest, shortest, images=1, num_beams=3**3)
    assert abs(scores[tuple(found)] - best) < 1e-4


def score(logits: Tensor, text: list[int], longest: int, shortest: int) -> float:
    """Log-probability by the text's length, the end counted where there was room for it."""
    steps = [*text, logits.shape[-1] - 1] if len(text) < longest else text
    total = 0.0
    for place, (last, token) in enumerate(itertools.pairwise(steps), 1):
        row = logits[place, last].log_softmax(-1)
        total += row[token].item()
    return total / len(text)
