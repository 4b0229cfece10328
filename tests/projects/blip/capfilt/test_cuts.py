"""Cuts through a score: intervals of published examples, and counts by hand."""

from __future__ import annotations

import numpy
import pytest

from lavis_lite.projects.blip.capfilt.cuts import (
    cut_at,
    share,
    stratum_weights,
    weighted_roc,
)

SCORES = numpy.array([0.9, 0.8, 0.8, 0.5, 0.2])
FITS = numpy.array([True, False, True, True, False])


@pytest.mark.parametrize(
    ("successes", "number", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(successes, number, low, high):
    found = share(successes, number)
    assert found.value == successes / number
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    assert share(number - successes, number).high == pytest.approx(1 - low, abs=6e-5)


def test_the_share_of_nothing_is_unknown():
    assert share(0, 0) == (None, 0.0, 1.0, 0)


def test_a_cut_keeps_what_is_at_least_as_good():
    cut = cut_at(0.8, SCORES, SCORES, FITS)
    assert cut.kept == 3
    assert (cut.precision.value, cut.precision.number) == pytest.approx((2 / 3, 3))
    assert (cut.recall.value, cut.recall.number) == pytest.approx((2 / 3, 3))
    assert cut_at(2.0, SCORES, SCORES, FITS)[1:3] == (0, (None, 0.0, 1.0, 0))


def test_texts_near_the_cut_that_were_judged_more_often_count_less():
    rng = numpy.random.default_rng(0)
    scores = rng.random(20_000)
    true = rng.random(20_000) < scores
    near = numpy.argsort(abs(scores - 0.5))[:600]
    chosen = numpy.concatenate([near, rng.choice(20_000, 400, replace=False)])
    cut = cut_at(0.5, scores, scores[chosen], true[chosen])
    plain = true[chosen][scores[chosen] >= 0.5].mean()
    truth = true[scores >= 0.5].mean()
    assert plain < truth - 0.1
    assert cut.precision.low < truth < cut.precision.high
    recall = (scores[true] >= 0.5).mean()
    assert cut.recall.low < recall < cut.recall.high
    assert cut.precision.number < (scores[chosen] >= 0.5).sum()


def test_weights_are_the_texts_that_each_judged_one_stands_for():
    scores = numpy.arange(100.0)
    assert stratum_weights(scores, numpy.array([1.0, 2.0, 95.0])).tolist() == [5, 5, 10]
    assert stratum_weights(numpy.zeros(50), numpy.zeros(2)).tolist() == [25, 25]
    assert len(stratum_weights(scores, numpy.empty(0))) == 0


def test_the_roc_of_all_judged_texts_has_the_area_by_pairs():
    scores = numpy.array([0.1, 0.2, 0.3, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    fits = numpy.array([False, True, False, False, True, True, False, True, True, True])
    area, points = weighted_roc(scores, scores, fits)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[fits] for b in scores[~fits]]
    assert area == pytest.approx(numpy.mean(pairs))
    assert points[0] == (0, 0)
    assert points[-1] == (1, 1)
    assert weighted_roc(scores, scores[fits], fits[fits]) == (None, [])
    assert weighted_roc(scores, scores[:0], fits[:0]) == (None, [])
