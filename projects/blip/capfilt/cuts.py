"""Precision, recall and ROC of a cut through a score, from judged texts, with their uncertainty."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy

_Z = 1.959964  # of a two-sided interval of 95 %


class Share(NamedTuple):
    """A share in [0, 1] with its interval of 95 %, and the number of cases that it is of."""

    value: float | None
    low: float
    high: float
    number: int


class Cut(NamedTuple):
    """The effect of keeping the texts whose score is at least ``limit``."""

    limit: float
    kept: int
    precision: Share
    recall: Share


def share(successes: int, number: int) -> Share:
    """Return a share with Wilson's score interval (JASA 22, 1927), which holds for few cases too.

    Args:
        successes: cases of the kind that is counted.
        number: all cases; the share of none is None, in [0, 1].
    """
    if not number:
        return Share(None, 0.0, 1.0, 0)
    rate, spread = successes / number, _Z * _Z / number
    middle = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    return Share(rate, max(0.0, middle - half), min(1.0, middle + half), number)


def cut_at(limit: float, scores: numpy.ndarray, judged: numpy.ndarray, fits: numpy.ndarray) -> Cut:
    """Return the effect of a cut.

    Args:
        limit: texts whose score is at least this are kept.
        scores: (N,) of all texts.
        judged: (J,) of the judged ones.
        fits: (J,) bool, the verdicts.
    """
    kept = judged >= limit
    right = int((kept & fits).sum())
    return Cut(
        limit,
        int((scores >= limit).sum()),
        share(right, int(kept.sum())),
        share(right, int(fits.sum())),
    )


def lowest_cut(precision: float, judged: numpy.ndarray, fits: numpy.ndarray) -> float | None:
    """Return the lowest cut that reaches a precision on the judged texts; None if there is none.

    Args:
        precision: wanted, in [0, 1]; the share itself has to reach it, not its interval.
        judged: (J,) scores.
        fits: (J,) bool.
    """
    order = numpy.argsort(-judged, kind="stable")
    ranked, right = judged[order], numpy.cumsum(fits[order])
    last = numpy.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]  # equal scores go together
    enough = last & (right >= precision * numpy.arange(1, len(ranked) + 1))
    places = numpy.flatnonzero(enough)
    return float(ranked[places[-1]]) if len(places) else None
