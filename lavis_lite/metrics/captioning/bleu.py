"""BLEU: how many of the candidates' n-grams occur in their references."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lavis_lite.metrics.captioning.ngrams import Ngrams, count_ngrams

# coco-caption's guards against empty counts; part of its figures.
_TINY, _SMALL = 1e-15, 1e-9


def bleu(
    candidates: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    max_order: int = 4,
) -> list[float]:
    """Corpus BLEU-1 to BLEU-``max_order``, in [0, 1].

    The brevity penalty compares with the reference whose length is closest (the shorter of two
    equally close ones). Nothing is smoothed: the figures are pycocoevalcap's.

    Args:
        candidates: the words of one caption per image.
        references: the words of each of an image's references, at least one.

    Reference: Papineni et al., ACL 2002.
    """
    matched, proposed = [0] * max_order, [0] * max_order
    candidate_length = reference_length = 0
    for words, texts in zip(candidates, references, strict=True):
        candidate_length += len(words)
        reference_length += _closest_length(len(words), texts)
        allowed = _highest_counts(texts, max_order)
        for ngram, count in count_ngrams(words, max_order).items():
            matched[len(ngram) - 1] += min(count, allowed[ngram])
            proposed[len(ngram) - 1] += count

    ratio = (candidate_length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    figures, product = [], 1.0
    for order in range(max_order):
        product *= (matched[order] + _TINY) / (proposed[order] + _SMALL)
        figures.append(penalty * product ** (1 / (order + 1)))
    return figures


def _closest_length(length: int, references: Sequence[Sequence[str]]) -> int:
    return min((abs(len(words) - length), len(words)) for words in references)[1]


def _highest_counts(references: Sequence[Sequence[str]], max_order: int) -> Ngrams:
    highest: Ngrams = Counter()
    for words in references:
        highest |= count_ngrams(words, max_order)
    return highest
