"""Recorded benchmarks: figures that follow from each other, and the page that shows them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lavis_lite.config import load
from lavis_lite.config.files import config_root
from lavis_lite.runners.benchmark.page import contenders, plots

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted(
    path
    for path in (ROOT / "benchmarks").glob("*.json")
    if '"matmul_gflop_per_second"' in path.read_text("utf-8")
)
PAGE = (ROOT / "docs" / "performance.rst").read_text(encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def reached(target: dict[str, Any]) -> bool:
    value = target["value"]
    return value <= target.get("at_most", value) and value >= target.get("at_least", value)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_figures_of_a_record_follow_from_its_runs(path: Path) -> None:
    record = read(path)
    assert record["cases"]
    assert {"commit", "torch", "cores", "processor"} <= record["environment"].keys()
    for case in record["cases"]:
        for found in contenders(case).values():
            assert found["seconds"] == pytest.approx(median(found["runs"]))
            assert found["per_second"] == pytest.approx(case["amount"] / found["seconds"])
        for baseline in case["baselines"].values():
            ratio = case["ours"]["seconds"] / baseline["seconds"]
            assert baseline["ratio"]["time"] == pytest.approx(ratio)
            assert all(one["agrees"] for one in baseline["differences"])
        for one in case["reach"]:
            assert one["reached"] is reached(one)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_csv_beside_a_record_says_the_same(path: Path) -> None:
    with path.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = {(row["case"], row["contender"]): row for row in csv.DictReader(file)}
    expected = {
        (case["title"], name): found["seconds"]
        for case in read(path)["cases"]
        for name, found in contenders(case).items()
    }
    assert {key: float(row["seconds"]) for key, row in rows.items()} == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_holds_what_its_config_measures_and_the_page_shows_it(path: Path) -> None:
    record = read(path)
    found = re.search(r"configs/(benchmark/\w+\.yaml)", record["command"])
    assert found is not None
    config = load(config_root() / found[1])
    assert len(record["cases"]) == sum(
        max(1, sum(map(len, case.vary.values()))) for case in config.cases
    )
    assert f"{path.stem}.json" in PAGE
    assert f"configs/{found[1]}" in PAGE
    assert all(chart.startswith("<") for chart in plots(record))


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The directives' module."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    import recorded_benchmarks

    return recorded_benchmarks


def timed(seconds: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "spread": 0.5, "per_second": 1.0, **more}


@pytest.mark.parametrize("measure", ["time", "memory", "total_memory"])
def test_a_target_against_what_was_not_timed_says_so(extension: Any, measure: str) -> None:
    case = {
        "unit": "steps",
        "ours": timed(2.0, peak_mib=1024.4, total_mib=3000.0),
        "baselines": {
            "wrong": {"differences": [{"agrees": False}], "ratio": {}},
            "absent": {"differences": [], "ratio": {}, "error": "ImportError: no peer"},
        },
    }
    ours = "2 ± 0.5 s" if measure == "time" else "1,024 of 3,000 MiB"
    one = {"measure": measure, "at_most": 0.6, "value": None, "reached": False}
    for against, why in (("wrong", "other results"), ("absent", "ImportError: no peer")):
        cells = extension.target_cells(case, {**one, "against": against})
        assert cells[0] == against
        assert cells[2:] == [why, "**no**", ours, "not timed"]
        assert extension.cells(case, case["baselines"][against]) == [why, *[""] * 5]


def test_memory_is_shown_as_what_a_run_adds_and_in_all(extension: Any) -> None:
    theirs = timed(4.0, peak_mib=2048.0, total_mib=4000.0)
    theirs["ratio"] = {"time": 0.5, "memory": 0.5, "total_memory": 0.75}
    case = {
        "unit": "steps",
        "ours": timed(2.0, peak_mib=1024.0, total_mib=3000.0),
        "baselines": {"plain": theirs},
    }
    one = {"against": "plain", "at_most": 0.6}
    added = {**one, "measure": "memory", "value": 0.5, "reached": True}
    assert extension.target_cells(case, added)[1:] == [
        *("at most 0.6 of its memory", "0.50", "yes"),
        *("1,024 of 3,000 MiB", "2,048 of 4,000 MiB"),
    ]
    whole = {**one, "measure": "total_memory", "value": 0.75, "reached": False}
    assert extension.target_cells(case, whole)[1:4] == [
        "at most 0.6 of all its process's memory",
        "0.75",
        "**no**",
    ]
    assert extension.cells(case, theirs)[-2:] == [
        "2,048 of 4,000 MiB",
        "time 0.50, memory 0.50, total memory 0.75",
    ]
    del theirs["ratio"]["total_memory"], theirs["total_mib"]  # of an older record
    assert extension.cells(case, theirs)[-2:] == ["2,048 MiB", "time 0.50, memory 0.50"]


def test_every_row_of_the_table_of_targets_is_recorded() -> None:
    wanted = {"caption", "rerank", "vqa_rank", "pretrain_step", "capfilt", "reading", "starting"}
    assert wanted | {"growth", "growth_training"} <= {path.stem for path in RECORDS}
