"""Several people's answers to one question, as a model trains on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def weigh(references: Sequence[str]) -> tuple[list[str], list[float]]:
    """The different answers in their first order, and the share of people who gave each.

    ``["red", "red", "pink", ...]`` of ten people: ``red`` weighs 0.2. As in the original BLIP,
    data/vqa_dataset.py.
    """
    counts = Counter(references)
    return list(counts), [count / len(references) for count in counts.values()]
