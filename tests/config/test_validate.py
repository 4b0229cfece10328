"""Stage 1: keys, types and names of a tree, all problems at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lavis_lite.config.annotations import problem_of
from lavis_lite.config.files import spell
from lavis_lite.config.schema import Evaluator, OptimConfig, RunConfig, TrainDataset, key
from lavis_lite.config.validate import Validator
from lavis_lite.registry.component import Component, ModelComponent


def convert(value: Any, wanted: Any, meta: Any = None) -> tuple[Any, dict[str, str]]:
    """What a value becomes, and the problems by key path."""
    validator = Validator()
    result = validator.convert(value, wanted, (), meta)
    return result, {spell(path): problem for path, problem in validator.problems}


@dataclass(frozen=True)
class Inner:
    """Two keys."""

    size: int = key("How many.", at_least=1)
    mode: Literal["fast", "slow"] = key("How.", "fast")


@dataclass(frozen=True)
class Outer:
    """One of everything."""

    inner: Inner = key("Nested.")
    rate: float = key("Rate.", 0.5, at_least=0)
    name: str | None = key("Name.", None)
    parts: list[Inner] = key("Several.", [])
    table: dict[str, Inner] = key("Named.", {})
    on: bool = key("Switch.", False)
    free: dict[str, Any] = key("Anything.", {})


def test_a_tree_becomes_frozen_dataclasses_with_their_defaults() -> None:
    value, problems = convert({"inner": {"size": 2}, "parts": [{"size": 1, "mode": "slow"}]}, Outer)
    assert problems == {}
    assert value == Outer(inner=Inner(2), parts=[Inner(1, "slow")])
    with pytest.raises(AttributeError):
        value.rate = 3


def test_every_problem_is_reported_with_its_key_path() -> None:
    tree = {
        "inner": {"size": 0, "mode": "fsat", "sise": 1},
        "rate": "high",
        "name": 3,
        "parts": [{"size": 1}, {"size": True}, 7],
        "table": {"x": {}},
        "on": 1,
        "fre": {},
    }
    _, problems = convert(tree, Outer)
    assert problems == {
        "inner.size": "at least 1, not 0",
        "inner.mode": "'fsat' is not one of its values. Did you mean 'fast'? Values: fast, slow",
        "inner.sise": "unknown key. Did you mean 'size'? Known: size, mode",
        "rate": "float is expected, not str 'high'",
        "name": "str is expected, not int 3",
        "parts[1].size": "int is expected, not bool True",
        "parts[2]": "a mapping is expected, not int 7",
        "table.x.size": "missing. How many.",
        "on": "bool is expected, not int 1",
        "fre": "unknown key. Did you mean 'free'? Known: inner, rate, name, parts, table, on, free",
    }


def test_a_required_key_that_is_missing_is_explained() -> None:
    assert convert({}, Outer)[1] == {"inner": "missing. Nested."}
    assert convert({"inner": "???"}, Outer)[1] == {"inner": "missing. Nested."}


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        ("1", int, False),
        (None, int, False),
        (1, float, True),
        (1.5, float, True),
        (True, float, False),
        ("1e-4", float, False),
        (True, bool, True),
        (0, bool, False),
        ("on", bool, False),
        ("text", str, True),
        (1, str, False),
    ],
)
def test_a_bool_is_no_number_and_an_int_is_a_float(value: Any, wanted: type, fits: bool) -> None:
    assert (problem_of(value, wanted) is None) == fits


def test_an_int_where_a_float_is_wanted_becomes_one() -> None:
    value, problems = convert({"inner": {"size": 1}, "rate": 3}, Outer)
    assert problems == {}
    assert isinstance(value.rate, float)


def test_long_values_are_cut_in_messages() -> None:
    problem = problem_of("x" * 1000, int)
    assert problem is not None
    assert len(problem) < 120


def test_no_number_below_the_smallest() -> None:
    assert convert({"lr": -1}, OptimConfig)[1] == {"lr": "at least 0, not -1"}


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_every_number_is_finite(value: float) -> None:
    message = f"a finite number is expected, not {value}"
    assert convert({"lr": value}, OptimConfig)[1] == {"lr": message}
    assert convert({"betas": [0.9, value]}, OptimConfig)[1] == {"betas[1]": message}
    assert convert({"name": "scenes", "weight": value}, TrainDataset)[1] == {"weight": message}


def test_choices_in_lists_are_checked() -> None:
    tree = {"output_dir": "x", "loggers": ["jsonl", "tensorbord"]}
    assert convert(tree, RunConfig)[1] == {
        "loggers[1]": "'tensorbord' is not one of its values. Did you mean 'tensorboard'? "
        "Values: jsonl, console, tensorboard"
    }


# ---- components


def test_what_is_not_a_key_of_the_component_is_an_argument_of_its_builder() -> None:
    value, problems = convert({"name": "scenes", "split": "web", "weight": 2}, TrainDataset)
    assert problems == {}
    assert value == TrainDataset("scenes", {"split": "web"}, weight=2.0)
    assert value.spec == {"name": "scenes", "split": "web"}


@pytest.mark.parametrize("value", ["itc", {}, {"name": 3}, None, []])
def test_a_component_is_a_mapping_with_a_name(value: Any) -> None:
    (problem,) = convert(value, Component)[1].values()
    assert problem.startswith("a mapping with a `name` is expected, not ")


def test_the_name_of_a_component_is_looked_up_in_its_kind() -> None:
    _, problems = convert({"name": "itcc"}, Component, {"kind": "loss"})
    assert list(problems) == ["name"]
    assert problems["name"].startswith("no loss named 'itcc'. Did you mean 'itc'?\n  known: ")


def test_an_evaluator_needs_data() -> None:
    assert convert({"name": "retrieval"}, Evaluator)[1] == {
        "data": "missing. The dataset to evaluate on."
    }
    assert convert({"name": "retrieval", "data": {"name": "scene"}}, Evaluator, {"kind": "metric"})[
        1
    ]["data.name"].startswith("no dataset named 'scene'. Did you mean 'scenes'?")


def test_the_parts_of_a_model_are_looked_up_too() -> None:
    tree = {
        "name": "blip_pretrain",
        "type": "tinny",
        "vision": {"name": "tim/x"},
        "text": 3,
        "losses": {"a": {"name": "itmm"}, "b": 3, "c": None, "d": {"alpha": 1}},
    }
    _, problems = convert(tree, ModelComponent, {"kind": "model"})
    assert {path: text.splitlines()[0] for path, text in problems.items()} == {
        "type": "model 'blip_pretrain' has no type 'tinny'. Did you mean 'tiny'? "
        "Types: base, large, tiny, scenes",
        "vision.name": "no vision_encoder named 'tim/x'. Did you mean 'timm/*'?",
        "text": "a mapping is expected, not int 3",
        "losses.a.name": "no loss named 'itmm'. Did you mean 'itm'?",
        "losses.b": "a mapping is expected, not int 3",
    }


def test_the_losses_of_a_model_are_a_mapping() -> None:
    _, problems = convert({"name": "blip_pretrain", "losses": ["itc"]}, ModelComponent)
    assert problems == {"losses": "a mapping of components is expected, not list ['itc']"}


def test_an_unknown_model_is_reported_once() -> None:
    tree = {"name": "blip_captoin", "type": "tiny"}
    _, problems = convert(tree, ModelComponent, {"kind": "model"})
    assert list(problems) == ["name"]
