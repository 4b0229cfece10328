"""BLEU, ROUGE-L and CIDEr-D: by hand, against recorded figures, and against pycocoevalcap."""

from __future__ import annotations

import math
import random

import pytest

from lavis_lite.metrics.captioning.bleu import bleu
from lavis_lite.metrics.captioning.cider import cider_d
from lavis_lite.metrics.captioning.rouge import rouge_l

Corpus = tuple[list[list[str]], list[list[list[str]]]]

CANDIDATES = ["a red dog runs", "the cat sat on the mat", "two men play football in the park"]
REFERENCES = [
    ["a red dog is running", "the dog runs"],
    ["the cat is on the mat", "there is a cat on the mat"],
    ["men play soccer in a park"],
]
# pycocoevalcap 1.2 on the corpus above: Bleu(4), Rouge, Cider.
RECORDED_BLEU = [
    0.7647058823079586,
    0.6183469423605719,
    0.4111818301463572,
    5.4294137650926884e-05,
]
RECORDED_ROUGE_L = 0.718615845497398
RECORDED_CIDER_D = 3.1585336462123244


def _corpus() -> Corpus:
    return [text.split() for text in CANDIDATES], [[t.split() for t in ts] for ts in REFERENCES]


def _random_corpus(seed: int) -> Corpus:
    rng = random.Random(seed)
    vocabulary = ["a", "red", "blue", "dog", "cat", "on", "the", "of", "big", "small", "runs", "'s"]

    def caption(shortest: int) -> list[str]:
        return rng.choices(vocabulary, k=rng.randint(shortest, 12))

    images = rng.randint(1, 20)
    shortest = seed % 2  # every other corpus has empty captions in it
    references = [[caption(shortest) for _ in range(rng.randint(1, 5))] for _ in range(images)]
    return [caption(0) for _ in range(images)], references


def test_figures_equal_the_recorded_ones() -> None:
    assert bleu(*_corpus()) == pytest.approx(RECORDED_BLEU, abs=1e-9)
    assert rouge_l(*_corpus()) == pytest.approx(RECORDED_ROUGE_L, abs=1e-9)
    assert cider_d(*_corpus()) == pytest.approx(RECORDED_CIDER_D, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_figures_equal_those_of_pycocoevalcap(seed: int) -> None:
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = _random_corpus(seed)
    proposed = {index: [" ".join(words)] for index, words in enumerate(candidates)}
    truth = {index: [" ".join(w) for w in texts] for index, texts in enumerate(references)}
    theirs = Bleu(4).compute_score(truth, proposed, verbose=0)[0]
    assert bleu(candidates, references) == pytest.approx(theirs, abs=1e-9)
    theirs = Rouge().compute_score(truth, proposed)[0]
    assert rouge_l(candidates, references) == pytest.approx(theirs, abs=1e-9)
    theirs = Cider().compute_score(truth, proposed)[0]
    assert cider_d(candidates, references) == pytest.approx(theirs, abs=1e-9)


def test_bleu_clips_repeated_words_and_punishes_brevity() -> None:
    figures = bleu([["the", "the", "the"]], [[["the", "cat", "sat", "down"]]])
    assert figures[0] == pytest.approx(math.exp(1 - 4 / 3) / 3)
    assert figures[1] == pytest.approx(0, abs=1e-6)


def test_bleu_compares_with_the_closest_reference_length_the_shorter_of_two() -> None:
    references = [["a", "b"], ["a", "b", "c", "d"]]
    assert bleu([["a", "b", "x"]], [references])[0] == pytest.approx(2 / 3)


def test_rouge_l_weighs_recall_more_than_precision() -> None:
    figure = rouge_l([["a", "b"]], [[["a", "x", "b", "y"]]])
    assert figure == pytest.approx((1 + 1.44) * 1 * 0.5 / (0.5 + 1.44 * 1))


def test_cider_d_is_ten_for_perfect_captions_and_zero_for_foreign_ones() -> None:
    references = [[["a", "red", "small", "dog"]], [["two", "blue", "cats", "sleep"]]]
    assert cider_d([texts[0] for texts in references], references) == pytest.approx(10)
    assert cider_d([["x"], ["y"]], references) == 0


def test_empty_captions_score_zero() -> None:
    candidates, references = [[], []], [[["a", "dog"]], [["a", "cat"]]]
    assert max(bleu(candidates, references)) == pytest.approx(0, abs=1e-9)
    assert rouge_l(candidates, references) == 0
    assert cider_d(candidates, references) == 0
