import json
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import config, registry
from lavis_lite.data.choice import Choice, choose
from lavis_lite.data.scenes import Scenes
from lavis_lite.errors import ConfigError, DataError

SCORES = [0.1, "0.7", 0.71, None, "n/a", True, float("nan"), 1]


def taken(fields: list[dict[str, Any]], **choice: Any) -> list[int]:
    numbers = choose(choice, "rows", len(fields), fields.__getitem__).numbers  # type: ignore[arg-type]
    return [*range(len(fields))] if numbers is None else numbers.tolist()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"min": 0.7}, [1, 2, 7]),
        ({"max": 0.7}, [0, 1]),
        ({"min": 0.7, "max": 0.99}, [1, 2]),
        ({"min": 0.1, "max": 0.1}, [0]),
        ({"min": 0.7, "max": None}, [1, 2, 7]),
        ([0.1, True], [0, 5]),
    ],
)
def test_where_takes_ranges_of_numbers(wanted: Any, expected: list[int]) -> None:
    assert taken([{"score": score} for score in SCORES], where={"score": wanted}) == expected


def test_of_several_fields_all_must_hold() -> None:
    rows = [{"score": number / 10, "origin": "web" if number % 2 else "new"} for number in range(8)]
    assert taken(rows, where={"score": {"min": 0.4}, "origin": "web"}) == [5, 7]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"mim": 0.7}, r"where\.score\.mim: unknown key\. Did you mean 'min'\? Known: min, max"),
        ({"min": "high"}, r"where\.score\.min: a number is expected, not str 'high'"),
        ({"min": True}, r"where\.score\.min: a number is expected, not bool True"),
        ({"max": float("nan")}, r"where\.score\.max: a number is expected"),
        ({}, r"where\.score: a range of numbers has a min, a max or both"),
        ({"min": None}, r"where\.score: a range of numbers has a min, a max or both"),
        ({"min": 0.9, "max": 0.7}, r"where\.score: min 0\.9 is above max 0\.7"),
    ],
)
def test_a_wrong_range_is_explained(wanted: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        taken([{"score": 1}], where={"score": wanted})


def test_an_empty_range_says_where_the_numbers_are() -> None:
    rows = [{"score": score} for score in SCORES]
    with pytest.raises(DataError, match=r"leave none of 8 rows.*'score': '0\.1 \.\.\. 1'"):
        taken(rows, where={"score": {"min": 2}})
    with pytest.raises(DataError, match="'score': 'no numbers'"):
        taken([{"score": "good"}], where={"score": {"min": 2}})


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([2, 4], [2, 3]),
        ([None, 2], [0, 1]),
        ([4, None], [4, 5]),
        ([-2, None], [4, 5]),
        ([1, -3], [1, 2]),
        ([4, 600], [4, 5]),
        ((2, 3), [2]),
    ],
)
def test_a_slice_names_rows_by_position(ends: Any, expected: list[int]) -> None:
    assert taken([{} for _ in range(6)], slice=ends) == expected


def test_the_rules_apply_in_their_order() -> None:
    rows = [{"score": number, "image_id": number} for number in range(100)]
    wanted: Choice = {"where": {"score": {"min": 50}}, "slice": [10, 30], "limit": 5}
    chosen = choose(wanted, "rows", len(rows), rows.__getitem__)
    assert chosen.numbers is not None
    assert chosen.numbers.tolist() == [60, 61, 62, 63, 64]
    assert chosen.left_out == {"another score": 50, "slice": 30, "limit": 15}


@pytest.mark.parametrize("ends", [[6, 9], [4, 2], [3, 3], [None, 0]])
def test_an_empty_slice_is_refused(ends: list[int | None]) -> None:
    with pytest.raises(DataError, match=r"scenes.*: slice: .* takes none of 6 rows.* 0 \.\.\. 5"):
        Scenes("test", size=6, slice=ends)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"slice": [1]}, r"slice: \[1\]; two numbers are expected, \[start, stop\]"),
        ({"slice": 4}, "slice: a list is expected, not int 4"),
        ({"slice": ["0", 4]}, "slice: in the list: int is expected"),
        ({"where": "clean"}, "where: a mapping is expected"),
        ({"limit": 2.5}, "limit: int is expected"),
        ({"limit": 0}, "limit: 0; at least 1"),
        ({"fold": {"of": 2, "take": None}}, r"fold\.take: a number or a list of numbers is"),
        ({"fold": {"of": 2, "take": "0"}}, r"fold\.take: a number or a list of numbers is"),
        ({"fold": {"by": None, "of": 2, "take": 0}}, r"fold\.by: str is expected"),
        ({"fold": {"of": True, "take": 0}}, r"fold: of=True, take=\[0\]; `of` is a number"),
        ({"fold": {"take": 0}}, r"fold: of=0, take=\[0\]; `of` is a number"),
    ],
)
def test_a_value_of_another_type_is_explained(choice: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Scenes("test", size=6, **choice)


def test_a_config_with_a_wrong_choice_is_refused_with_its_key_before_anything_is_read() -> None:
    wrong = {
        "data.train[0].where": {"noise": {"mn": 1}, "key": "a", "score": {"min": "low"}},
        "data.train[1].slice": [1, 2, 3],
        "data.train[1].fold": {"of": 3, "take": ["0"]},
        "evaluate[0].data.limit": 0,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in wrong.items()]
    sources = [
        'data.train=[{"name": "scenes"}, {"name": "json", "path": "gone.json"}]',
        'evaluate=[{"name": "retrieval", "data": {"name": "scenes"}}]',
    ]
    with pytest.raises(ConfigError) as caught:
        config.bind(config.load("blip/pretrain_scenes.yaml", [*sources, *overrides]))
    assert str(caught.value).splitlines() == [
        "data.train[0].where.noise.mn: unknown key. Did you mean 'min'? Known: min, max",
        "data.train[0].where.score.min: a number is expected, not str 'low'",
        "data.train[1].slice: [1, 2, 3]; two numbers are expected, [start, stop]",
        "data.train[1].fold.take: a number or a list of numbers is expected, not list ['0']",
        "evaluate[0].data.limit: 0; at least 1, or null for all rows",
    ]


def test_an_argument_that_no_dataset_has_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"no argument 'limt'\. Did you mean 'limit'"):
        Scenes("test", size=6, limt=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", registry.index.names("dataset"))
def test_every_dataset_takes_every_choice(name: str) -> None:
    arguments = registry.entry("dataset", name).arguments
    assert set(Choice.__annotations__) <= set(arguments)
    assert all(arguments[key].default is None for key in Choice.__annotations__)


def test_defaults_of_image_options_are_those_of_decoding(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "pairs.json").write_text(json.dumps([{"image": "a.png", "caption": "a"}]))
    spec = {"name": "json", "path": str(tmp_path / "pairs.json")}
    arguments = registry.entry("dataset", "json").arguments
    stated = {key: arguments[key].default for key in ("exif", "max_pixels")}
    assert registry.build("dataset", spec).decode.keywords == stated
