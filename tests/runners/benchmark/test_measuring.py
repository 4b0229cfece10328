"""Turns, peaks and agreement: the parts that a benchmark is made of."""

from __future__ import annotations

import math

import torch

from lavis_lite.runners.benchmark.agreement import Difference, of_lists, of_tensors
from lavis_lite.runners.benchmark.machine import matmul_rate
from lavis_lite.runners.benchmark.memory import MIB, peak_of
from lavis_lite.runners.benchmark.timing import in_turns

CPU = torch.device("cpu")


def test_contenders_take_turns_after_the_warmup() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    found = in_turns(runs, repeats=3, warmup=1, device=CPU)
    assert "".join(order) == "ab" + "ababab"
    assert [len(found[name].wall) for name in "ab"] == [3, 3]
    assert found["a"].median == sorted(found["a"].wall)[1]


def test_a_single_run_has_no_spread() -> None:
    found = in_turns({"a": lambda: None}, repeats=1, warmup=0, device=CPU)["a"]
    assert found.spread == 0.0


def test_the_peak_is_what_a_run_held_and_not_what_it_left() -> None:
    def run() -> None:
        block = torch.ones(64 * MIB // 4)
        del block

    peak = peak_of(run, CPU)
    assert 60 < peak.growth < 80
    assert peak.total > peak.growth
    assert peak_of(lambda: None, CPU).growth < 30  # the earlier peak is forgotten


def test_a_machine_has_a_rate() -> None:
    assert matmul_rate(CPU, torch.float32) > 1e8


def test_what_is_no_number_agrees_with_nothing() -> None:
    assert not Difference("x", math.nan, 1.0).agrees
    assert not of_tensors("x", torch.tensor([math.nan]), torch.tensor([1.0]), 10.0).agrees
    assert not of_tensors("x", torch.ones(2), torch.ones(3), 10.0).agrees
    assert of_tensors("x", torch.ones(2), torch.ones(2) + 0.01, 0.02).agrees
    assert of_lists("x", "abcd", "abce").value == 0.25
    assert not of_lists("x", "abc", "abcd").agrees
