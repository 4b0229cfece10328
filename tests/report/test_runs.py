"""Reports of runs and pipelines: complete, and shown with less where files are missing or odd."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_pages import CONFIG, example_run, nothing_active, read_page, write_run

from lavis_lite import registry, report
from lavis_lite.config.schema import EvaluateConfig
from lavis_lite.report import runs


def test_hostile_names_paths_and_captions_of_a_run_stay_text(tmp_path: Path) -> None:
    name = '"><img onerror=alert(1)>'
    example_run(tmp_path / name)
    captions = tmp_path / name / "predictions" / "caption.jsonl"
    captions.write_text(captions.read_text().replace("said 0", "<script>alert(1)</script>"))
    start = {"command": "javascript:alert(1) <b>", "device": "<i>", "processes": 1}
    (tmp_path / name / "run.json").write_text(json.dumps(start))
    stages = {name: tmp_path / name, "again": tmp_path / name}
    page = read_page(
        report.report_pipeline(tmp_path, stages, "<u>", compare=[(name, "again")], about="<svg>")
    )
    assert page.text.count(name) > 5
    for text in ("<script>alert(1)</script>", "javascript:alert(1) <b>", "<u>", "<svg>", "<i>"):
        assert text in page.text
    nothing_active(page)


def test_a_pipeline_is_shown_with_figures_curves_and_examples(tmp_path: Path) -> None:
    example_run(tmp_path / "pretrain")
    example_run(tmp_path / "again")
    stages = {"pretrain": tmp_path / "pretrain", "again": tmp_path / "again"}
    path = report.report_pipeline(
        tmp_path, stages, "Two <runs>", compare=[("pretrain", "again")], about="One seed."
    )
    assert path == str(tmp_path / "report.html")
    page = read_page(path)
    ids = [attributes["id"] for attributes in page.all("section")]
    assert ids == [
        "before-and-after",
        "results",
        "captions",
        "retrieval",
        "matching",
        "training",
        "runs",
        "how-this-was-made",
    ]
    for text in (
        "One seed. 2 runs",
        "43.2%",
        "16.7%",
        "python run.py --cfg <x>",
        "guessing: 0.6365",
        "2 min 2 s",
    ):
        assert text in page.text
    assert len(page.all("img")) == 12 + 6 * 5 + 6
    assert page.text.count("wrong: first colour red") == 11
    assert page.text.count("cannot be read as a description") == 1
    assert len(page.all("span", "mark good")) == 2
    assert "fits: 0.92" in page.text
    assert page.text.count("ITM loss by step") == 1  # runs are drawn over each other
    assert Path(path).stat().st_size < 2**20


def test_compared_runs_show_the_earlier_captions_and_figures(tmp_path: Path) -> None:
    for name in ("first", "second"):
        example_run(tmp_path / name)
    captions = tmp_path / "first" / "predictions" / "caption.jsonl"
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    rows[1]["caption"] = "said <otherwise>"
    captions.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    metrics = tmp_path / "first" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("0.1666", "0.0833"))
    stages = {name: tmp_path / name for name in ("first", "second")}
    page = read_page(report.report_pipeline(tmp_path, stages, "x", compare=[("first", "second")]))
    assert page.text.count("said <otherwise>") == 1  # the other captions did not change
    assert len(page.all("s")) == 1
    assert "Facts in captions, shares 12 images" in page.text
    assert "captions with every fact right (first → second, 12 images)8.3 → 16.7%" in page.text
    assert "+0.083" in page.text


def test_the_first_compared_pair_gives_the_figures_at_the_top(tmp_path: Path) -> None:
    names = ("web", "cleaned", "tuned", "tuned again")
    for name, exact in zip(names, ("0.1", "0.9", "0.95", "0.96"), strict=True):
        example_run(tmp_path / name)
        metrics = tmp_path / name / "metrics.jsonl"
        metrics.write_text(metrics.read_text().replace("0.1666", exact))
    stages = {name: tmp_path / name for name in names}
    pairs = [("web", "cleaned"), ("tuned", "tuned again")]
    page = read_page(report.report_pipeline(tmp_path, stages, "x", compare=pairs))
    assert "(web → cleaned, 12 images)10.0 → 90.0%" in page.text
    assert "(tuned → tuned again, 12 images)" not in page.text


@pytest.mark.parametrize(
    ("metric", "rows", "said"),
    [
        ("caption", [{"image_id": n} for n in range(1200)], "1,200 images"),
        ("retrieval", [{"query": q} for q in ("image", "text", "text")], "1 images and 2 texts"),
        ("vqa", [{"question": "what?", "image_id": 1}] * 2, "2 questions"),
        ("retrieval", [{"label": 1}], ""),  # of another release
        ("unknown here", [{"label": 1}, {"label": 2}], "2 rows"),
        ("caption", [], ""),
    ],
)
def test_figures_say_of_how_many_they_are(
    tmp_path: Path, metric: str, rows: list[Any], said: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert runs.Evaluated("x", metric, [(0, {})], path).counted() == said


def test_a_runner_may_show_sections_of_its_own(tmp_path: Path) -> None:
    class Runner:
        Config = EvaluateConfig

        @staticmethod
        def report_sections(folder, config):
            found = f"{folder.name}, {config.runner.name}"
            return [report.Section("Own", found)]

    registry.register("runner", "showing")(Runner)
    config = CONFIG.replace("runner: {name: evaluate}", "runner: {name: showing}")
    example_run(tmp_path / "done", config)
    page = read_page(report.report_pipeline(tmp_path, {"done": tmp_path / "done"}, "x"))
    assert "done, showing" in page.text
    (tmp_path / "done" / "complete.json").unlink()  # it has nothing to say yet
    page = read_page(report.report_pipeline(tmp_path, {"done": tmp_path / "done"}, "x"))
    assert "done, showing" not in page.text


def test_a_run_whose_config_is_gone_is_shown_without_images(tmp_path: Path) -> None:
    example_run(tmp_path / "run", config=None)
    page = read_page(report.report_run(tmp_path / "run"))
    assert page.all("img") == []
    assert len(page.all("div", "missing")) == 12 + 6 * 5 + 6
    assert "43.2" in page.text


@pytest.mark.parametrize(
    "config", ["runner: {name: ", CONFIG.replace("name: scenes", "name: nowhere"), "5"]
)
def test_a_config_that_cannot_be_read_costs_the_images_only(tmp_path: Path, config: str) -> None:
    example_run(tmp_path / "run", config=config)
    page = read_page(report.report_run(tmp_path / "run", "Broken"))
    assert page.all("img") == []
    assert "43.2" in page.text


def test_rows_of_another_shape_cost_their_section_only(tmp_path: Path) -> None:
    example_run(tmp_path / "run")
    (tmp_path / "run" / "predictions" / "caption.jsonl").write_text('{"other": 1}\nhalf a li')
    page = read_page(report.report_run(tmp_path / "run"))
    ids = [attributes["id"] for attributes in page.all("section")]
    assert "captions" not in ids
    assert "retrieval" in ids


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    page = read_page(report.report_pipeline(tmp_path, {"gone": tmp_path / "gone"}, "Nothing"))
    assert "Not finished: gone" in page.text


def test_a_metric_that_states_nothing_gets_a_table(tmp_path: Path) -> None:
    records = [{"step": 3, "evaluate": "my_metric", "some_figure": 0.5, "seconds": 1.0}]
    write_run(tmp_path / "run", None, records)
    page = read_page(report.report_run(tmp_path / "run"))
    assert "my metric" in page.text
    assert "some figure" in page.text


def test_the_environment_names_versions_and_hardware() -> None:
    found = report.environment()
    assert {"lavis_lite", "torch", "Python", "platform", "processor", "cores"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_importing_the_report_loads_no_torch() -> None:
    code = "import sys, lavis_lite.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
