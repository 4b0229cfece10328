"""Precision, recall and ROC of a cut through a score, from judged texts, with their uncertainty."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy

_Z = 1.959964  # of a two-sided interval of 95 %
_STRATA = 10


class Share(NamedTuple):
    """A share in [0, 1] with its interval of 95 %, and the number of cases that it is of.

    Cases that count differently are worth as many as ``number`` says, which need not be whole.
    """

    value: float | None
    low: float
    high: float
    number: float


class Cut(NamedTuple):
    """The effect of keeping the texts whose score is at least ``limit``."""

    limit: float
    kept: int
    precision: Share
    recall: Share


def share(successes: float, number: float) -> Share:
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


def weighted_share(counted: numpy.ndarray, weights: numpy.ndarray) -> Share:
    """Return the share of cases that count differently.

    The interval is Wilson's for as many equal cases as these are worth: (sum w)^2 / sum w^2
    (Kish, Survey Sampling, 1965).

    Args:
        counted: (J,) bool.
        weights: (J,) above 0.
    """
    if not len(weights):
        return share(0, 0)
    number = float(weights.sum() ** 2 / (weights**2).sum())
    return share(number * float(weights[counted].sum() / weights.sum()), number)


def stratum_weights(scores: numpy.ndarray, judged: numpy.ndarray) -> numpy.ndarray:
    """Return how many texts each judged one stands for, (J,).

    People judge more texts near a cut than elsewhere. All texts fall into ten strata of equal size
    by score, and the judged ones of a stratum stand for all of it in equal parts, so that shares
    are those of the whole run, wherever people looked (post-stratification). Strata in which
    nothing was judged are not represented.

    Args:
        scores: (N,) of all texts, no NaN.
        judged: (J,) of the judged ones.
    """
    if not len(judged):
        return numpy.empty(0)
    edges = numpy.unique(numpy.quantile(scores, numpy.linspace(0, 1, _STRATA + 1)[1:-1]))
    size = numpy.bincount(numpy.searchsorted(edges, scores, "right"), minlength=len(edges) + 1)
    stratum = numpy.searchsorted(edges, judged, "right")
    return (size / numpy.maximum(1, numpy.bincount(stratum, minlength=len(size))))[stratum]


def cut_at(limit: float, scores: numpy.ndarray, judged: numpy.ndarray, fits: numpy.ndarray) -> Cut:
    """Return the effect of a cut on all texts, as the judged ones show it.

    Args:
        limit: texts whose score is at least this are kept.
        scores: (N,) of all texts, no NaN.
        judged: (J,) of the judged ones, see `stratum_weights`.
        fits: (J,) bool, the verdicts.
    """
    kept, weights = judged >= limit, stratum_weights(scores, judged)
    return Cut(
        limit,
        int((scores >= limit).sum()),
        weighted_share(fits[kept], weights[kept]),
        weighted_share(kept[fits], weights[fits]),
    )


def weighted_roc(
    scores: numpy.ndarray, judged: numpy.ndarray, fits: numpy.ndarray
) -> tuple[float | None, list[tuple[float, float]]]:
    """Return the receiver operating characteristic of all texts, as the judged ones show it.

    Args:
        scores: (N,) of all texts, no NaN.
        judged: (J,) of the judged ones.
        fits: (J,) bool, the verdicts.

    Returns:
        The area under the curve (ties count half) and the curve: share of those that do not fit
        and of those that do above a limit, both rising from 0 to 1. None and no points while one
        kind is missing.
    """
    if fits.all() or not fits.any():
        return None, []
    weights, order = stratum_weights(scores, judged), numpy.argsort(-judged, kind="stable")
    last = numpy.append(numpy.diff(judged[order]) != 0, True)  # equal scores are kept together
    right = numpy.cumsum(numpy.where(fits, weights, 0)[order])[last]
    wrong = numpy.cumsum(numpy.where(fits, 0, weights)[order])[last]
    y, x = (numpy.concatenate([[0], part / part[-1]]) for part in (right, wrong))
    area = float((numpy.diff(x) * (y[1:] + y[:-1]) / 2).sum())
    return area, list(zip(x.tolist(), y.tolist(), strict=True))
