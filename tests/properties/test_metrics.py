"""Figures: within their bounds for any input, best for what is right, and blind to order."""

from __future__ import annotations

import itertools
import math

import numpy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lavis_lite.metrics.caption import caption_scores
from lavis_lite.metrics.itm import area_under_curve
from lavis_lite.metrics.ranking import Ranking, found
from lavis_lite.metrics.vqa_words import aok_vqa_accuracy, normalise, vqa_accuracy

CAPTIONS = st.one_of(st.text("ab c.,'", max_size=20), st.text(max_size=12))
IMAGES = st.lists(
    st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=3)), min_size=1, max_size=4
)
SCORES = st.lists(st.integers(-20, 20), min_size=1, max_size=12).map(numpy.array)


@given(IMAGES)
@settings(max_examples=60)
def test_caption_figures_are_finite_and_within_their_bounds(
    images: list[tuple[str, list[str]]],
) -> None:
    figures = caption_scores([caption for caption, _ in images], [texts for _, texts in images])
    for name, value in figures.items():
        assert math.isfinite(value), name
        assert -1e-9 <= value <= (10 if name == "cider_d" else 1) + 1e-6, name


@given(IMAGES, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_images_and_of_references_does_not_matter(
    images: list[tuple[str, list[str]]], rng: object
) -> None:
    other = [(caption, texts[::-1]) for caption, texts in images]
    rng.shuffle(other)  # type: ignore[attr-defined]
    one, two = (
        caption_scores([caption for caption, _ in rows], [texts for _, texts in rows])
        for rows in (images, other)
    )
    for name, value in one.items():
        assert abs(two[name] - value) < 1e-9, name


WORDS = st.lists(st.sampled_from(["cat", "dog", "red", "runs"]), min_size=4, max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=3))
@settings(max_examples=30)
def test_a_caption_that_is_its_reference_has_the_highest_score(rows: list[list[str]]) -> None:
    texts = [" ".join(words) for words in rows]
    figures = caption_scores(texts, [[text] for text in texts])
    for name in ("bleu_1", "bleu_4", "rouge_l"):
        assert abs(figures[name] - 1) < 1e-6, name


@given(SCORES, SCORES)
def test_the_area_under_the_curve_is_a_chance(true: numpy.ndarray, false: numpy.ndarray) -> None:
    area = area_under_curve(true, false)
    assert 0 <= area <= 1
    assert abs(area + area_under_curve(false, true) - 1) < 1e-9
    wins = (true[:, None] > false).mean() + (true[:, None] == false).mean() / 2
    assert abs(area - wins) < 1e-9
    assert area_under_curve(2 * true + 1, 2 * false + 1) == area  # only the order counts


@given(
    above=st.integers(0, 12),
    tied=st.integers(1, 8),
    true=st.integers(1, 8),
    below=st.integers(0, 5),
)
def test_recall_is_a_chance_that_grows_with_k(above: int, tied: int, true: int, below: int) -> None:
    assume(true <= tied)
    column = lambda value: torch.tensor([value])  # noqa: E731
    empty = torch.zeros(1, 0)
    ranking = Ranking(column(above), column(tied), column(true), empty, empty)
    chances = [found(ranking, k).item() for k in range(1, above + tied + below + 1)]
    assert all(0 <= chance <= 1 for chance in chances)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(chances))
    assert chances[above + tied - 1] == 1
    assert all(chance == 0 for chance in chances[:above])
    if above == 0:  # among equals it is guessing
        assert abs(chances[0] - true / tied) < 1e-12


ANSWERS = st.one_of(
    st.sampled_from(["yes", "no", "two", "2", "a cat", "Cat."]), st.text(max_size=8)
)


@given(ANSWERS, st.lists(ANSWERS, min_size=1, max_size=10))
def test_an_answer_is_right_to_some_degree(answer: str, references: list[str]) -> None:
    for accuracy in (vqa_accuracy, aok_vqa_accuracy):
        assert 0 <= accuracy(answer, references) <= 1 + 1e-9
        assert abs(accuracy(answer, references) - accuracy(answer, references[::-1])) < 1e-9
    same = [answer] * 10
    assert abs(vqa_accuracy(answer, same) - 1) < 1e-9
    assert normalise(normalise(answer)) == normalise(normalise(normalise(answer)))
