"""Tables and headlines of metrics, as their classes state them."""

from __future__ import annotations

import pytest

from lavis_lite import registry
from lavis_lite.metrics.columns import OTHERS, Chief, Column
from lavis_lite.report.figures import (
    chief_of,
    columns_for,
    count_of,
    figure_of,
    headline_of,
    title_of,
)
from lavis_lite.report.tables import metric_table

METRICS = [name for name in registry.names("metric") if registry.index.module("metric", name)]


class Sharpness:
    """A metric of one's own that says how it is to be shown."""

    requires = ()
    title = "Sharpness of images"
    counted = "{camera} photographs"
    columns = (
        Column("sharp", "in focus", "share", digits=2, unit="%"),
        Column("blur", "blurred by", digits=0, better=-1),
        Column("internal", shown=False),
    )
    chief = Chief("sharp", "photographs in focus", "%", factor=100)


@pytest.fixture
def sharpness() -> str:
    registry.register("metric", "sharpness")(Sharpness)
    return "sharpness"


def test_a_metric_of_ones_own_gets_the_columns_that_its_class_states(sharpness: str) -> None:
    keys = ["more_of_it", "blur", "internal", "sharp"]
    assert columns_for(sharpness, keys) == [
        Column("sharp", "in focus", "share", digits=2, unit="%"),
        Column("blur", "blurred by", digits=0, better=-1),
        Column("more_of_it", "more of it", digits=3, better=0),
    ]
    assert [column.key for column in columns_for(sharpness, ["blur"])] == ["blur"]
    assert title_of(sharpness) == "Sharpness of images"


def test_its_best_run_is_emphasised_as_it_states(sharpness: str) -> None:
    rows = {"first": {"sharp": 0.5, "blur": 3.0}, "second": {"sharp": 0.5, "blur": 7.0}}
    table = str(metric_table(columns_for(sharpness, ["sharp", "blur"]), rows))
    assert table.count("best") == 1  # less blur is better, and both are as sharp
    assert table.index("best") < table.index("second")


def test_its_chief_figure_is_a_headline(sharpness: str) -> None:
    figures = {"sharp": 0.5, "blur": 3.0}
    headline = headline_of(sharpness, figures, "second")
    assert headline is not None
    assert (headline.value, headline.unit) == ("50.0", "%")
    assert headline.label == "photographs in focus (second)"
    assert chief_of(sharpness) == "sharp"
    assert headline_of(sharpness, {"blur": 3.0}, "") is None
    assert figure_of(sharpness, {"blur": 3.0}) == "–"


def test_its_rows_are_counted_as_it_states(sharpness: str) -> None:
    rows = [{"camera": camera} for camera in ("old", "new", "new")]
    assert count_of(sharpness, rows) == "1 old photographs and 2 new photographs"
    assert count_of(sharpness, [{"lens": "old"}]) == ""
    assert count_of("never_registered", [{}] * 1500) == "1,500 rows"
    assert count_of("retrieval", [{"query": "image"}, {"query": "text"}, {"query": "text"}]) == (
        "1 images and 2 texts"
    )


def test_of_a_metric_that_states_nothing_there_is_a_table_and_no_headline() -> None:
    (column,) = columns_for("never_registered", ["some_figure"])
    assert (column.label, column.better) == ("some figure", 0)
    assert title_of("never_registered") == "never registered"
    assert headline_of("never_registered", {"some_figure": 1.0}, "") is None


def test_attributes_of_facts_are_better_when_higher() -> None:
    assert columns_for("facts", ["colour", "exact"]) == [
        Column("exact", "all right", digits=3),
        Column("colour", "colour", digits=3),
    ]


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_of_this_project_states_its_title_columns_and_chief_figure(name: str) -> None:
    metric = registry.entry("metric", name).result
    chief, columns = getattr(metric, "chief", None), getattr(metric, "columns", ())
    assert getattr(metric, "title", None)
    assert isinstance(chief, Chief)
    keys = [column.key for column in columns]
    assert chief.key in keys
    assert len(set(keys)) == len(keys)
    assert all(column.label for column in columns if column.shown and column.key != OTHERS)
