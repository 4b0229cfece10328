"""ROUGE-L: the longest common subsequence of a candidate and its references."""

from __future__ import annotations

from collections.abc import Sequence

_BETA = 1.2  # recall weighs more than precision; coco-caption's value


def rouge_l(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> float:
    """Mean ROUGE-L F-measure over images, in [0, 1]; the figure is pycocoevalcap's.

    Precision and recall are each the best over the references, not of one reference.

    Reference: Lin and Och, ACL 2004.
    """
    scores = [_score(words, texts) for words, texts in zip(candidates, references, strict=True)]
    return sum(scores) / len(scores)


def _score(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    candidate = candidate or [""]  # pycocoevalcap sees one empty word in an empty caption
    precision = recall = 0.0
    for reference in references:
        reference = reference or [""]
        common = _common_length(candidate, reference)
        precision = max(precision, common / len(candidate))
        recall = max(recall, common / len(reference))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for column, other in enumerate(second, start=1):
            above = lengths[column]
            lengths[column] = diagonal + 1 if word == other else max(above, lengths[column - 1])
            diagonal = above
    return lengths[-1]
