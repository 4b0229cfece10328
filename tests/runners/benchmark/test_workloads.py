"""The core's workloads, at sizes that take a moment: equal results, every figure there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_lite import registry, runners
from lavis_lite.config import load_and_bind
from lavis_lite.errors import ConfigError

SMALL_FILES = {"images": 16, "width": 96, "height": 64, "size": 32, "batch": 8, "workers": 1}
QUICK = {"run.repeats": 1, "run.warmup": 0, "run.num_threads": 1, "run.device": "cpu"}


def run(config: str, out: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    given = {**QUICK, "run.output_dir": str(out), **values}
    return runners.run(load_and_bind(f"benchmark/{config}.yaml", values=given))["cases"]


def test_both_ways_of_reading_read_every_image_once(tmp_path: Path) -> None:
    small = {f"cases[{n}].{key}": value for n in (0, 1) for key, value in SMALL_FILES.items()}
    for case in run("reading", tmp_path, small):
        (baseline,) = case["baselines"].values()
        assert [one["agrees"] for one in baseline["differences"]] == [True]
        assert case["amount"] == 16
        assert baseline["ratio"]["time"] == case["ours"]["seconds"] / baseline["seconds"]


def test_a_baseline_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    workload: Any = registry.build("workload", {"name": "shard_reading", **SMALL_FILES})
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ConfigError, match="pip install webdataset"):
        workload.contender("webdataset")


def test_reading_less_than_everything_shows() -> None:
    arguments = {"name": "image_folder", **SMALL_FILES, "workers": 0}
    workload = registry.build("workload", arguments)
    every = workload.contender("ours")()
    assert sorted(every) == sorted(workload.contender("torchvision")())
    assert workload.differences("torchvision", every, every)[0].agrees
    assert not workload.differences("torchvision", every, every[:-1])[0].agrees


def test_commands_start_and_weights_come_back_to_the_bit(tmp_path: Path) -> None:
    values = {"cases[2].type": "tiny", "cases[0].arguments": ["-c", "pass"]}
    cases = run("starting", tmp_path, values)
    for case in cases:
        (baseline,) = case["baselines"].values()
        assert all(one["agrees"] for one in baseline["differences"])
    seconds = [one for one in cases[0]["reach"] if one["measure"] == "seconds"]
    assert [one["value"] for one in seconds] == [cases[0]["ours"]["seconds"]]
    assert not any("gflop" in case["ours"] for case in cases)


def test_a_command_that_fails_is_not_timed_beside_the_baseline() -> None:
    workload = registry.build("workload", {"name": "command", "arguments": ["-c", "exit(3)"]})
    (found,) = workload.differences("bare interpreter", workload.contender("ours")(), 0)
    assert found.value == 3
    assert not found.agrees


@pytest.mark.parametrize("changed", [False, True])
def test_a_weight_that_differs_from_the_file_shows(changed: bool) -> None:
    spec = {"name": "load_weights", "model": "blip_caption", "type": "tiny"}
    workload = registry.build("workload", spec, device=torch.device("cpu"))
    model = workload.contender("ours")()
    if changed:
        with torch.no_grad():
            next(model.parameters()).add_(1.0)
    (found,) = workload.differences("reading the file", model, 0)
    assert found.agrees is not changed
