"""One type checker for the keys of a config and the arguments of parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest
import torch

from lavis_lite.config.annotations import problem_of


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, int),
        (1, float),
        (None, int | None),
        ("a", Literal["a", "b"] | int),
        ([1, 2.5], list[float]),
        ((1, 2), Sequence[int]),
        ([[1], []], list[list[int]]),
        ({"a": 1}, dict[str, str]),  # keys and values are their owner's business
        ({}, Mapping[str, Any]),
        (object(), Any),
        ("cpu", torch.device),  # no plain type
    ],
)
def test_what_fits_has_no_problem(value: Any, annotation: Any) -> None:
    assert problem_of(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "problem"),
    [
        (True, int, "int is expected, not bool True"),
        (1.5, int, "int is expected, not float 1.5"),
        (0, bool, "bool is expected, not int 0"),
        (None, str, "str is expected, not NoneType None"),
        ("x", int | None, "int is expected, not str 'x'"),
        ("hrad", Literal["hard", "all"], "Did you mean 'hard'? Values: hard, all"),
        ("ab", list[str], "a list is expected, not str 'ab'"),
        ([1, "b"], list[int], "in the list: int is expected, not str 'b'"),
        ([1], dict[str, Any], "a mapping is expected, not list [1]"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, annotation: Any, problem: str) -> None:
    assert problem_of(value, annotation).endswith(problem)  # type: ignore[union-attr]
