"""The runner that measures: equal work first, then turns; a wrong peer is never timed."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import runners
from lavis_lite.config import load_and_bind
from lavis_lite.errors import ConfigError
from lavis_lite.runners.benchmark import case as benchmark_case
from lavis_lite.runners.benchmark.memory import Peak
from lavis_lite.runners.benchmark.page import COLUMNS
from lavis_lite.runners.benchmark.runner import BenchmarkRunner

PLUGIN = '''
"""Sums of squares, beside a slow and a wrong way, and one whose package is missing."""
import multiprocessing
import os
import signal
import torch
from lavis_lite import registry
from lavis_lite.runners.benchmark.agreement import Difference

@registry.register("workload", "squares_NUMBER")
class Squares:
    """The sum of squares of a vector."""
    unit = "numbers"
    baselines = ("twice", "wrong", "absent")

    def __init__(
        self, count: int = 64, dies: bool = False, *, device: torch.device, precision: str
    ) -> None:
        if count == 13:
            raise RuntimeError("out of memory\\nand more")
        if dies and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)  # as where memory runs out
        self.amount = count
        self.x = torch.ones(count, 1, device=device)
        self.calls = []

    def contender(self, name):
        if name == "absent":
            import a_package_that_is_not_there
        def run():
            self.calls.append(name)
            for _ in range(2 if name == "twice" else 1):
                found = (self.x.T @ self.x).item()
            return found + (name == "wrong")
        return run

    def differences(self, baseline, ours, theirs):
        return [Difference("sum", abs(ours - theirs), 1e-6)]
'''
CONFIG = """
# python run.py --cfg squares.yaml
runner: {name: benchmark}
plugins: [squares.py]
cases:
  - title: one
    name: squares_NUMBER
    baselines: [twice, wrong]
    reach: {twice: {time: 1000.0}, wrong: {time: 1000.0}, ours: {seconds: 0.0}}
  - title: more
    name: squares_NUMBER
    baselines: [twice]
    precision: bf16
    vary: {count: [8, 16, 32]}
run: {output_dir: OUT, repeats: 3, warmup: 0, device: cpu, num_threads: 1}
"""
_made = iter(range(100))


@pytest.fixture
def cfg(tmp_path: Path) -> Path:
    number = str(next(_made))
    (tmp_path / "squares.py").write_text(PLUGIN.replace("NUMBER", number))
    text = CONFIG.replace("NUMBER", number).replace("OUT", str(tmp_path / "out"))
    (tmp_path / "squares.yaml").write_text(text)
    return tmp_path / "squares.yaml"


def run(cfg: Path, *overrides: str) -> dict[str, Any]:
    return runners.run(load_and_bind(cfg, overrides))


def test_figures_are_consistent(cfg: Path) -> None:
    table = run(cfg)
    assert [case["title"] for case in table["cases"]] == [
        "one",
        *(f"more, count {count}" for count in (8, 16, 32)),
    ]
    for case in table["cases"]:
        ours, twice = case["ours"], case["baselines"]["twice"]
        assert len(ours["runs"]) == len(twice["runs"]) == 3
        assert ours["seconds"] == sorted(ours["runs"])[1]
        assert twice["ratio"]["time"] == ours["seconds"] / twice["seconds"]
        assert ours["per_second"] == case["amount"] / ours["seconds"]
        assert twice["gflop"] == 2 * ours["gflop"] == 2 * 2 * case["amount"] / 1e9
        rate = case["matmul_gflop_per_second"]
        assert ours["share_of_rate"] == pytest.approx(ours["gflop"] / ours["seconds"] / rate)
    assert [case["amount"] for case in table["cases"]] == [64, 8, 16, 32]
    assert (
        table["metrics"]["one/twice/time"]
        == table["cases"][0]["baselines"]["twice"]["ratio"]["time"]
    )


def test_a_peer_that_comes_to_something_else_is_reported_and_not_timed(cfg: Path) -> None:
    case = run(cfg, "run.only=one")["cases"][0]
    wrong = case["baselines"]["wrong"]
    assert wrong["differences"] == [
        {"what": "sum", "value": 1.0, "tolerance": 1e-6, "agrees": False}
    ]
    assert wrong["ratio"] == {}
    assert "seconds" not in wrong
    reached = {(one["against"], one["measure"]): one for one in case["reach"]}
    assert reached["twice", "time"]["reached"] is True
    assert reached["wrong", "time"] == {
        "against": "wrong", "measure": "time", "at_most": 1000.0, "value": None, "reached": False,
    }  # fmt: skip
    assert reached["ours", "seconds"]["reached"] is False
    assert reached["ours", "seconds"]["value"] == case["ours"]["seconds"]
    page = (Path(cfg).parent / "out" / "report.html").read_text()
    assert "other results" in page
    assert "1 of 3 targets are reached" in page


@pytest.mark.parametrize(("wanted", "reached"), [(1e-15, True), (2.0, False)])
def test_a_share_of_the_rate_is_wanted_at_least(cfg: Path, wanted: float, reached: bool) -> None:
    reach = f"cases[0].reach={{ours: {{share_of_rate: {wanted}}}}}"
    found = run(cfg, "run.only=one", reach)["cases"][0]["reach"]
    (one,) = (one for one in found if one["measure"] == "share_of_rate")
    assert one["at_least"] == wanted
    assert one["reached"] is reached
    with (cfg.parent / "out" / "benchmark.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["share_of_rate_at_least"] == f"{wanted:.6g}"
    assert row["share_of_rate_reached"] == str(reached)
    assert f"share of rate at least {wanted:.3g}" in (cfg.parent / "out/report.html").read_text()


def test_the_record_says_what_ran_where(cfg: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "squares"
    table = run(cfg, f"run.record={kept}", "run.only=more")
    assert json.loads(kept.with_suffix(".json").read_text()) == json.loads(
        json.dumps({k: v for k, v in table.items()})
    )
    assert {"torch", "cores", "Python"} <= table["environment"].keys()
    assert table["cases"][0]["precision"] == "bf16"
    assert table["cases"][0]["threads"] == 1
    with kept.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["case"], row["contender"]) for row in rows[:2]] == [
        ("more, count 8", "ours"),
        ("more, count 8", "twice"),
    ]
    for row in rows[1::2]:
        (case,) = (c for c in table["cases"] if c["title"] == row["case"])
        ratio = case["baselines"]["twice"]["ratio"]["time"]
        assert float(row["time_ratio"]) == pytest.approx(ratio, rel=1e-4)
        assert row["same_results"] == "True"
        assert row["torch"] == table["environment"]["torch"]
    assert (tmp_path / "out" / "benchmark.csv").read_text() == kept.with_suffix(".csv").read_text()


def test_work_whose_operations_are_not_counted_has_no_share(cfg: Path) -> None:
    case = "{title: one, name: command, arguments: [-c, pass], reach: {ours: {share_of_rate: 0.1}}}"
    with pytest.raises(ConfigError, match=r"reach\.ours\.share_of_rate: command has no counted"):
        run(cfg, f"cases[0]={case}")


def test_what_grows_is_drawn(cfg: Path, tmp_path: Path) -> None:
    run(cfg)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "more: numbers per second" in page
    (told,) = re.findall("<desc>(.*from.*)</desc>", page)
    assert re.findall(r"(\w+): from [\d.,e+]+ at count 8 to", told) == ["ours", "twice"]
    assert "time of ours, divided by" in page


def test_peak_memory_is_measured_in_a_process_of_its_own(cfg: Path, tmp_path: Path) -> None:
    case = run(
        cfg, "run.only=more", "cases[1].memory=true",
        "cases[1].reach={twice: {memory: 1e9, total_memory: 1e9}}",
        "cases[1].vary.count=[8000000]", "run.repeats=1",
    )["cases"][0]  # fmt: skip
    ours, twice = case["ours"], case["baselines"]["twice"]
    assert ours["total_mib"] > 30  # the vector itself, held before the run
    assert 0 <= ours["peak_mib"] < ours["total_mib"]
    if twice["peak_mib"]:
        assert twice["ratio"]["memory"] == ours["peak_mib"] / twice["peak_mib"]
    assert twice["ratio"]["total_memory"] == ours["total_mib"] / twice["total_mib"]
    assert {one["measure"]: one["value"] for one in case["reach"]} == {
        what: twice["ratio"].get(what) for what in ("memory", "total_memory")
    }
    with (tmp_path / "out" / "benchmark.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    for key, value in (("total_mib", twice["total_mib"]), ("total_memory_at_most", 1e9)):
        assert float(row[key]) == pytest.approx(value, rel=1e-4)
    assert f"<td>{twice['total_mib']:,.0f}</td>" in (tmp_path / "out" / "report.html").read_text()


def test_what_does_not_fit_is_told_at_once_and_together(cfg: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(
            cfg, "cases[0].baselines=[twce]", "cases[0].reach={wrong: {time: 1}, ours: {time: 1}}",
            "cases[1].vary={cuont: [1]}", "cases[1].reach={twice: {memory: 1, total_memory: 1}}",
            "cases[1].repeats=0",
        )  # fmt: skip
    text = str(error.value)
    assert "cases[0].baselines: squares_" in text
    assert "Did you mean 'twice'?" in text
    assert "cases[0].reach.wrong: not measured here" in text
    assert "cases[0].reach.ours.time: one of seconds" in text
    assert "cases[1].vary: squares_" in text
    assert "Did you mean 'count'?" in text
    assert "cases[1].reach.twice.memory: needs `memory: true`" in text
    assert "cases[1].reach.twice.total_memory: needs `memory: true`" in text
    assert "cases[1].repeats: 0; at least 1" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["true", "large", "[1, 2]"])
def test_what_is_varied_is_a_number(cfg: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"cases\[1\]\.vary\.count: .*; numbers"):
        run(cfg, f"cases[1].vary={{count: [{value}]}}")


def test_a_baseline_whose_memory_cannot_be_measured_keeps_its_time(
    cfg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_ours(case: Any, name: str, setting: Any) -> Any:
        if name != "ours":
            raise MemoryError("too little of it")
        return Peak(1.0, 2.0)

    monkeypatch.setattr(benchmark_case, "peak_apart", only_ours)
    (case,) = run(cfg, "run.only=one", "cases[0].memory=true", "run.repeats=1")["cases"]
    assert (case["ours"]["peak_mib"], case["ours"]["total_mib"]) == (1.0, 2.0)
    assert "seconds" in case["baselines"]["twice"]
    assert "peak_mib" not in case["baselines"]["twice"]


def test_titles_tell_cases_apart(cfg: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['more, count 8'\] more than once"):
        run(cfg, "cases[1].vary.count=[8,16,8]")
    with pytest.raises(ConfigError, match=r"run\.only: 'seven' is in no title\. Titles: one; more"):
        run(cfg, "run.only=seven")
    with pytest.raises(ConfigError, match=r"no title\. Did you mean 'more'\?"):
        run(cfg, "run.only=moer")
    with pytest.raises(ConfigError, match=r"no title\. Did you mean 'more, count 16'\?"):
        run(cfg, "run.only=more count 16")


def test_what_cannot_run_costs_nothing_but_itself(cfg: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "squares"
    with pytest.raises(ConfigError) as error:
        run(
            cfg, "cases[0].baselines=[absent,twice,wrong]", "cases[0].reach.absent={time: 0.5}",
            "cases[1].vary.count=[8,13,16]", f"run.record={kept}", "run.repeats=1",
        )  # fmt: skip
    assert str(error.value).splitlines() == [
        f"2 of the runs in `cases` failed; {tmp_path / 'out'} has the others; {kept} is not "
        "written:",
        "  more, count 13: RuntimeError: out of memory",
        "  one, absent: ModuleNotFoundError: No module named 'a_package_that_is_not_there'",
    ]
    table = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert [case["title"] for case in table["cases"]] == ["one", "more, count 8", "more, count 16"]
    assert table["failed"] == {"more, count 13": "RuntimeError: out of memory"}
    baselines = table["cases"][0]["baselines"]
    assert baselines["absent"]["ratio"] == {}
    assert baselines["absent"]["error"].startswith("ModuleNotFoundError")
    assert "time" in baselines["twice"]["ratio"]
    (wanted,) = (one for one in table["cases"][0]["reach"] if one["against"] == "absent")
    assert (wanted["value"], wanted["reached"]) == (None, False)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "ModuleNotFoundError" in page
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    assert "more, count 13 RuntimeError: out of memory" in text
    with (tmp_path / "out" / "benchmark.csv").open() as file:
        rows = {(row["case"], row["contender"]): row for row in csv.DictReader(file)}
    assert rows["one", "absent"]["same_results"] == ""
    assert rows["one", "twice"]["same_results"] == "True"
    assert not kept.parent.exists()
    assert not (tmp_path / "out" / "complete.json").exists()


def test_a_process_that_is_killed_for_its_memory_is_not_waited_for(cfg: Path) -> None:
    with pytest.raises(ConfigError, match=r"more, count 8: MemoryError: .* of ours died"):
        run(
            cfg, "run.only=more", "cases[1].vary={count: [8]}", "cases[1].dies=true",
            "cases[1].memory=true", "run.repeats=1",
        )  # fmt: skip


def test_a_run_of_some_cases_replaces_no_record_of_more(cfg: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "squares"
    run(cfg, f"run.record={kept}", "run.repeats=1", "cases[1].vary.count=[8]")
    before = kept.with_suffix(".json").read_bytes()
    with pytest.raises(ConfigError, match=r"run\.only: 'more' leaves out \(one\); measure all"):
        run(cfg, f"run.record={kept}", "run.only=more")
    assert kept.with_suffix(".json").read_bytes() == before
    run(cfg, f"run.record={tmp_path / 'kept' / 'other'}", "run.only=one", "run.repeats=1")
    run(cfg, f"run.record={kept}", "run.repeats=1", "cases[1].vary.count=[8]")
    assert kept.with_suffix(".json").read_bytes() != before


def test_compiling_is_not_timed() -> None:
    compiling = ["cases[0].compile=true", "run.warmup=0"]
    with pytest.raises(ConfigError, match=r"run\.warmup: at least 1 where a case compiles"):
        BenchmarkRunner(load_and_bind("benchmark/caption.yaml", compiling))
    BenchmarkRunner(load_and_bind("benchmark/caption.yaml", [compiling[0], "run.warmup=1"]))
