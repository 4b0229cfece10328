"""Cuts through a score: intervals of published examples, and counts by hand."""

from __future__ import annotations

import numpy
import pytest

from lavis_lite.projects.blip.capfilt.cuts import cut_at, lowest_cut, share

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
    cut = cut_at(0.8, numpy.array([0.9, 0.8, 0.8, 0.79, 0.1, 0.95]), SCORES, FITS)
    assert cut.kept == 4
    assert (cut.precision.value, cut.precision.number) == (2 / 3, 3)
    assert (cut.recall.value, cut.recall.number) == (2 / 3, 3)


def test_the_lowest_cut_of_a_precision_keeps_equal_scores_together():
    assert lowest_cut(1.0, SCORES, FITS) == 0.9
    assert lowest_cut(0.75, SCORES, FITS) == 0.5
    assert lowest_cut(0.6, SCORES, FITS) == 0.2
    assert lowest_cut(0.7, SCORES, FITS) == 0.5
    assert lowest_cut(0.9, SCORES[1:], FITS[1:]) is None
    assert lowest_cut(0.5, SCORES[:0], FITS[:0]) is None
