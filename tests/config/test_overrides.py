"""Merging: names that change, lists, overrides; checked against simple models of what it means."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lavis_lite.config.overrides import from_dotted, parse_overrides
from lavis_lite.errors import ConfigError
from lavis_lite.registry.component import merge

KEYS = st.text("abc", min_size=1, max_size=2)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text("xy", max_size=3)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=4)


def test_mappings_merge_key_by_key() -> None:
    base = {"optim": {"lr": 1, "betas": [1, 2]}, "seed": 0}
    assert merge(base, {"optim": {"lr": 2}}) == {"optim": {"lr": 2, "betas": [1, 2]}, "seed": 0}


def test_lists_are_replaced_whole() -> None:
    assert merge({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}


def test_changing_the_name_drops_the_old_arguments() -> None:
    base = {"vision": {"name": "timm/resnet18", "depth": 3}}
    assert merge(base, {"vision": {"name": "acme", "width": 8}}) == {
        "vision": {"name": "acme", "width": 8}
    }


def test_the_same_name_keeps_the_old_arguments() -> None:
    base = {"vision": {"name": "acme", "depth": 3}}
    assert merge(base, {"vision": {"name": "acme", "width": 8}}) == {
        "vision": {"name": "acme", "depth": 3, "width": 8}
    }


def test_null_replaces_a_mapping_and_a_mapping_replaces_null() -> None:
    assert merge({"losses": {"itm": {"name": "itm"}}}, {"losses": {"itm": None}}) == {
        "losses": {"itm": None}
    }
    assert merge({"a": None}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_a_number_reaches_into_a_list() -> None:
    base = {"train": [{"name": "scenes", "split": "web"}, {"name": "json"}]}
    merged = merge(base, {"train": {0: {"split": "human"}}})
    assert merged == {"train": [{"name": "scenes", "split": "human"}, {"name": "json"}]}
    assert merge(base, {"train": {1: {"name": "csv"}}})["train"][1] == {"name": "csv"}


def test_a_number_past_the_end_says_where() -> None:
    with pytest.raises(ConfigError) as error:
        merge({"data": {"train": [{"sets": []}]}}, {"data": {"train": {0: {"sets": {2: 1}}}}})
    assert str(error.value) == "data.train[0].sets[2] is past the end of a list of 0"


def test_an_empty_mapping_does_not_pass_for_a_list() -> None:
    assert merge({"a": [1]}, {"a": {}}) == {"a": {}}


@given(MAPPINGS, MAPPINGS)
def test_merging_changes_neither_side(base: Any, over: Any) -> None:
    before = copy.deepcopy((base, over))
    merged = merge(base, over)
    assert (base, over) == before
    assert set(merged) == set(base) | set(over)


@given(MAPPINGS)
def test_nothing_and_itself_are_neutral(tree: Any) -> None:
    assert merge(tree, {}) == tree
    assert merge({}, tree) == tree
    assert merge(tree, tree) == tree


@given(MAPPINGS, MAPPINGS)
def test_what_is_laid_on_top_is_what_is_seen(base: Any, over: Any) -> None:
    def check(wanted: Any, seen: Any) -> None:
        if isinstance(wanted, dict) and wanted:
            for key, value in wanted.items():
                check(value, seen[key])
        elif not isinstance(wanted, dict):
            assert seen == wanted

    check(over, merge(base, over))


@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_later_layers_may_be_merged_first(a: Any, b: Any, c: Any) -> None:
    assume(all_mappings(a, b, c))
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


def all_mappings(*trees: Any) -> bool:
    """Whether no key is a mapping in one tree and something else in another."""
    keys = {key for tree in trees for key in tree}
    for key in keys:
        values = [tree[key] for tree in trees if key in tree]
        mappings = [isinstance(value, dict) for value in values]
        if any(mappings) and not (all(mappings) and all_mappings(*values)):
            return False
    return True


# ---- overrides


def test_overrides_read_numbers_lists_and_mappings_as_yaml_does() -> None:
    assert parse_overrides(
        ["a.lr=1e-4", "a.n=3", "a.on=true", "a.none=null", "a.text=3 words", "a.list=[1, x]"]
    ) == {"a": {"lr": 1e-4, "n": 3, "on": True, "none": None, "text": "3 words", "list": [1, "x"]}}
    assert parse_overrides(["m={name: x, b: [{c: 1}]}"]) == {"m": {"name": "x", "b": [{"c": 1}]}}


def test_an_equals_sign_in_the_value_belongs_to_the_value() -> None:
    assert parse_overrides(["url=https://host/?a=b"]) == {"url": "https://host/?a=b"}


def test_later_overrides_win_and_a_name_drops_what_came_before() -> None:
    assert parse_overrides(["a=1", "a=2"]) == {"a": 2}
    assert parse_overrides(["v.name=x", "v.k=1", "v.name=y"]) == {"v": {"name": "y"}}


def test_overrides_reach_into_lists() -> None:
    assert parse_overrides(["data.train[0].split=human"]) == {
        "data": {"train": {0: {"split": "human"}}}
    }
    assert parse_overrides(["a=[1, 2]", "a[1]=3"]) == {"a": [1, 3]}


@pytest.mark.parametrize(
    "text", ["lr", "=1", ".lr=1", "a..b=1", "a[=1", "a[x]=1", "a[0=1", "[0]=1"]
)
def test_what_is_not_key_value_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides([text])
    assert str(error.value) == f"override {text!r} is not key=value (like optim.lr=1e-4)"


def test_an_override_that_would_lose_an_earlier_one_is_refused_and_both_are_named() -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides(["run.max_steps=4", "run=5", "run.output_dir=X"])
    assert str(error.value) == (
        "override 'run=5': earlier overrides set run.max_steps; null takes the section away"
    )
    with pytest.raises(ConfigError) as error:
        parse_overrides(["a.b[0]=5", "a.b[0].c=1"])
    assert str(error.value) == "override 'a.b[0].c=1': an earlier override sets a.b[0] to 5"
    with pytest.raises(ConfigError, match=r"^'a\.b': an earlier override sets a to 'x'"):
        from_dotted({"a": "x", "a.b": 1})


def test_null_and_whole_sections_may_take_the_place_of_earlier_overrides() -> None:
    assert parse_overrides(["a.b=1", "a=null"]) == {"a": None}
    assert parse_overrides(["a=null", "a.b=1"]) == {"a": {"b": 1}}
    assert parse_overrides(["a[0].b=1", "a=[2]"]) == {"a": [2]}
    assert parse_overrides(["a=[{b: 1}]", "a[0].b=2"]) == {"a": [{"b": 2}]}
    assert parse_overrides(["a=1", "a={b: 2}"]) == {"a": {"b": 2}}


@pytest.mark.parametrize("value", ["[", "{a: 1", "!!python/object/apply:os.getcwd []", "[" * 5000])
def test_a_value_that_is_no_plain_yaml_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match=r"override 'a="):
        parse_overrides([f"a={value}"])


@given(st.lists(KEYS, min_size=1, max_size=4), st.integers(-99, 99))
def test_every_dotted_key_becomes_a_path(keys: list[str], value: int) -> None:
    tree: Any = parse_overrides([f"{'.'.join(keys)}={value}"])
    for key in keys:
        assert list(tree) == [key]
        tree = tree[key]
    assert tree == value
    assert from_dotted({".".join(keys): value}) == parse_overrides([f"{'.'.join(keys)}={value}"])


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused_politely(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_overrides([text]), dict)


def test_dotted_keys_in_a_config_take_values_as_they_are() -> None:
    values = {"model.checkpoint": "1e-4", "data.train[1].weight": 2.0}
    assert from_dotted(values) == {
        "model": {"checkpoint": "1e-4"},
        "data": {"train": {1: {"weight": 2.0}}},
    }
    with pytest.raises(ConfigError, match=r"'a\.\.b' is not a dotted key"):
        from_dotted({"a..b": 1})
