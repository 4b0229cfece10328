from collections import Counter

import pytest

from lavis_lite.data.mixture import Draw, Mixture, probe
from lavis_lite.errors import ConfigError


def test_without_weights_an_epoch_is_every_row_once():
    mixture = Mixture([5, 3], [None, None], seed=0)
    assert mixture.samples_per_epoch == 8
    for epoch in range(4):
        draws = mixture.draws(8 * epoch, 8 * epoch + 8)
        rows = {(draw.dataset, draw.row) for draw in draws}
        assert rows == {(0, i) for i in range(5)} | {(1, i) for i in range(3)}
        assert {draw.turn for draw in draws} == {epoch}
    assert mixture.draws(0, 8) != mixture.draws(8, 16)


def test_a_stretch_of_the_stream_is_the_same_however_it_is_reached():
    stream = Mixture([7, 4], [0.3, 0.7], seed=1).draws(0, 100)
    for start, stop in ((90, 100), (3, 4), (0, 50), (11, 11), (21, 34)):
        assert Mixture([7, 4], [0.3, 0.7], seed=1).draws(start, stop) == stream[start:stop]
    assert Mixture([7, 4], [0.3, 0.7], seed=2).draws(0, 100) != stream


def test_weights_are_shares_of_the_stream():
    mixture = Mixture([1000, 10, 90], [1, 2, 0], seed=0)
    assert mixture.samples_per_epoch == 1100
    counts = Counter(draw.dataset for draw in mixture.draws(0, 1100))
    assert counts == {0: 367, 1: 733}


def test_every_row_comes_once_per_turn_whatever_the_weights():
    draws = Mixture([10, 7], [1, 9], seed=0).draws(0, 17 * 40)
    for dataset, length in ((0, 10), (1, 7)):
        turns = Counter(draw.turn for draw in draws if draw.dataset == dataset)
        complete = [turn for turn, count in turns.items() if count == length]
        assert len(complete) >= len(turns) - 1
        for turn in complete:
            rows = [d.row for d in draws if d.dataset == dataset and d.turn == turn]
            assert sorted(rows) == list(range(length))


def test_a_small_weight_is_not_rounded_away():
    counts = Counter(draw.dataset for draw in Mixture([10, 10], [1000, 1], 0).draws(0, 21))
    assert counts == {0: 20, 1: 1}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, None], "every dataset a weight, or none"),
        ([0, 0], "not all 0"),
        ([1, -1], "0 or more"),
        ([float("inf"), 1], "0 or more"),
    ],
)
def test_wrong_weights_are_explained(weights, message):
    with pytest.raises(ConfigError, match=message):
        Mixture([3, 3], weights, seed=0)


@pytest.mark.parametrize("length", [1, 2, 3, 12, 30, 97])
def test_the_probe_visits_every_other_row_once(length):
    for row in range(min(length, 5)):
        draw = Draw(0, 3, row)
        others = [probe(draw, attempt, length, seed=0) for attempt in range(1, length)]
        assert sorted([row, *others]) == list(range(length))


def test_probes_differ_between_rows_and_turns():
    first = {probe(Draw(0, turn, row), 1, 1000, 0) for turn in range(5) for row in range(5)}
    assert len(first) > 20
