"""CIDEr-D: agreement with the references in n-grams that are rare among all references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from lavis_lite.metrics.captioning.ngrams import Ngrams, count_ngrams

_ORDERS = 4
_SIGMA = 6.0


class _Vector(NamedTuple):
    """A caption as tf-idf weights: one mapping and norm per order, and its length in bigrams."""

    weights: list[dict[tuple[str, ...], float]]
    norms: list[float]
    length: int


def cider_d(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    """Mean CIDEr-D over images, in [0, 10]; the figure is pycocoevalcap's.

    Document frequencies come from the references of the very images that are scored, so the
    figure depends on the test set and is 0 for a single image. Lengths are compared in bigrams,
    as published.

    Reference: Vedantam et al., CVPR 2015, https://arxiv.org/abs/1411.5726.
    """
    scores = cider_d_each(candidates, references)
    return sum(scores) / len(scores)


def cider_d_each(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    """Return the CIDEr-D of each caption, in [0, 10], see `cider_d`."""
    counted = [[count_ngrams(words, _ORDERS) for words in texts] for texts in references]
    document_frequency: Ngrams = Counter()
    for texts in counted:
        document_frequency.update(set().union(*texts))
    log_documents = math.log(len(counted))

    def vector(ngrams: Ngrams) -> _Vector:
        return _tf_idf(ngrams, document_frequency, log_documents)

    scores = []
    for words, texts in zip(candidates, counted, strict=True):
        candidate = vector(count_ngrams(words, _ORDERS))
        similarity = sum(_similarity(candidate, vector(text)) for text in texts)
        scores.append(10 * similarity / len(texts))
    return scores


def _tf_idf(ngrams: Ngrams, document_frequency: Ngrams, log_documents: float) -> _Vector:
    weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(_ORDERS)]
    length = 0
    for ngram, count in ngrams.items():
        rarity = log_documents - math.log(max(1, document_frequency[ngram]))
        weights[len(ngram) - 1][ngram] = count * rarity
        if len(ngram) == 2:
            length += count
    norms = [math.sqrt(sum(weight**2 for weight in order.values())) for order in weights]
    return _Vector(weights, norms, length)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Clipped cosine, averaged over the orders, times a penalty on a different length."""
    total = 0.0
    for order in range(_ORDERS):
        theirs = reference.weights[order]
        shared = sum(
            min(weight, theirs[ngram]) * theirs[ngram]
            for ngram, weight in candidate.weights[order].items()
            if ngram in theirs
        )
        norm = candidate.norms[order] * reference.norms[order]
        total += shared / norm if norm else 0.0
    penalty = math.exp(-((candidate.length - reference.length) ** 2) / (2 * _SIGMA**2))
    return penalty * total / _ORDERS
