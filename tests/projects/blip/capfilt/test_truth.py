"""Precision, recall and ROC of the filter, where a field of the rows says what is right."""

from __future__ import annotations

import json

import numpy
import pytest

from lavis_lite.projects.blip.capfilt.truth import roc

KNOWN = ("data.label=kind", "data.right=[kind0]")


def test_verdicts_are_compared_with_what_is_known(capfilt, records):
    folder = capfilt("out", *KNOWN, "data.source={name: toy_pairs, size: 60, broken: [5]}")
    found = records(folder)
    right = numpy.array([r["fields"]["kind"] == "kind0" for r in found])
    kept = numpy.array([r["kept"]["web"] for r in found])
    scores = numpy.array([r["scores"]["web"] for r in found])
    truth = json.loads((folder / "stats.json").read_text())["truth"]
    assert (truth["texts"], truth["right"]) == (59, 30)
    assert truth["precision"] == pytest.approx((right & kept).sum() / kept.sum(), abs=1e-5)
    assert truth["recall"] == pytest.approx((right & kept).sum() / right.sum(), abs=1e-5)
    pairs = scores[right][:, None] - scores[~right][None]
    by_hand = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert truth["auc"] == pytest.approx(by_hand, abs=1e-5)
    done = json.loads((folder / "complete.json").read_text())
    assert done["roc"] == truth["roc"]
    assert done["metrics"]["web_auc"] == pytest.approx(by_hand, abs=1e-3)
    assert done["metrics"]["web_precision"] == pytest.approx(100 * truth["precision"], abs=1e-3)


def test_the_curve_goes_through_every_limit_and_its_area_is_the_auc():
    rng = numpy.random.default_rng(0)
    true, false = rng.integers(2, 9, 40) / 10, rng.integers(0, 7, 30) / 10
    points = numpy.array(roc(true, false))
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    for limit in (0.3, 0.6):
        expected = [(false >= limit).mean(), (true >= limit).mean()]
        assert numpy.abs(points - expected).sum(1).min() < 2e-5
    area = numpy.trapezoid(points[:, 1], points[:, 0])
    pairs = true[:, None] - false[None]
    assert area == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2, abs=1e-4)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    rng = numpy.random.default_rng(0)
    points = roc(rng.random(3000) + 0.2, rng.random(3000))
    assert len(points) == 51
    assert (points[0], points[-1]) == ([0, 0], [1, 1])


def test_texts_without_scores_give_no_curve_and_no_label_no_truth(capfilt):
    unfiltered = json.loads((capfilt("out", *KNOWN, "filter=null") / "stats.json").read_text())
    assert unfiltered["truth"] == {"texts": 24, "right": 12, "precision": 0.5, "recall": 1.0}
    assert json.loads((capfilt("plain") / "stats.json").read_text())["truth"] is None


def test_what_is_right_can_be_said_afterwards(capfilt):
    folder = capfilt("out", KNOWN[0])
    before = {p: p.stat().st_mtime_ns for p in (folder / "shards").iterdir()}
    capfilt("out", *KNOWN)
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "shards").iterdir()}
    assert json.loads((folder / "stats.json").read_text())["truth"]["right"] == 12
