"""Statistics of a sweep, and how they are written."""

from __future__ import annotations

import itertools

import pytest

from lavis_lite.runners.sweep import page
from lavis_lite.runners.sweep.grid import dots, read_grid
from lavis_lite.runners.sweep.seeds import difference, statistic, written


def test_the_spread_is_that_of_the_sample() -> None:
    found = statistic({0: 1.0, 1: 2.0, 2: 6.0})
    assert found["mean"] == 3
    assert found["spread"] == pytest.approx(7**0.5)  # (4 + 1 + 9) / (3 - 1)
    assert found["seeds"] == {"0": 1.0, "1": 2.0, "2": 6.0}


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    assert statistic({0: 4.0, 1: None}) == {"mean": 4.0, "spread": None, "seeds": {"0": 4.0}}
    assert statistic({0: None}) == {"mean": None, "spread": None, "seeds": {}}


def test_differences_are_taken_seed_by_seed() -> None:
    found = difference({0: 11.0, 1: 22.0, 2: 5.0, 3: None}, {0: 10.0, 1: 20.0, 3: 1.0})
    assert found["seeds"] == {"0": 1.0, "1": 2.0}
    assert found["mean"] == 1.5


def test_statistics_are_written_with_their_spread() -> None:
    assert written({"mean": 63.24, "spread": 4.06}, 1) == "63.2 ± 4.1"
    assert written({"mean": -0.5, "spread": None}, 2, sign="+") == "−0.50"
    assert written({"mean": 2.0, "spread": None}, 0, sign="+") == "+2"
    assert written({"mean": None, "spread": None}, 1) == "–"


@pytest.mark.parametrize(
    ("measures", "expected"), [(1, [1]), (6, [6]), (10, [5, 5]), (13, [5, 5, 3])]
)
def test_many_measures_are_divided_among_tables(measures: int, expected: list[int]) -> None:
    names = {f"m{n}": {"digits": 1, "better": 1} for n in range(measures)}
    table = {
        "measures": names,
        "arms": {"a": {"about": "one", "values": {m: statistic({0: 1.0}) for m in names}}},
    }
    drawn = page._results(table)
    tables = drawn.split("</table>")[:-1]
    assert [one.count('<th scope="col">m') for one in tables] == expected


def test_a_grid_is_read_by_its_last_axis() -> None:
    arms = {
        f"{size}, {kind}, {loss}": {
            "values": {"R@1": statistic({0: None if loss == "b" else mean})}
        }
        for mean, (size, kind, loss) in enumerate(itertools.product("sl", "xy", "ab"))
    }
    axes = {"size": ["s", "l"], "kind": ["x", "y"], "loss": ["a", "b"]}
    grid = read_grid({"grid": axes, "arms": arms}, "R@1")
    assert grid.rows == ["s, x", "s, y", "l, x", "l, y"]
    assert [grid.cells["l, x", loss]["mean"] for loss in grid.columns] == [4, None]
    assert dots(grid).rows["l, y"] == [6, None]
    assert grid.measured == ["a"]
