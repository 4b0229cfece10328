"""Counts of word sequences, shared by BLEU and CIDEr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Ngrams = Counter[tuple[str, ...]]


def count_ngrams(words: Sequence[str], max_order: int) -> Ngrams:
    """Count how often each sequence of 1 to ``max_order`` words occurs."""
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, max_order + 1)
        for start in range(len(words) - order + 1)
    )
