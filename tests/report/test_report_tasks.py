"""Reports of answers, classes and statements; and of figures that could not be computed."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lavis_lite import report

CONFIG = """
runner: {name: evaluate}
model: {name: blip_pretrain, type: tiny}
evaluate:
  - {name: vqa, data: {name: scenes_vqa, split: test}}
  - {name: nlvr, data: {name: scenes_nlvr, split: test}}
  - {name: zero_shot_classification, data: {name: class_folders, path: pictures}}
  - {name: caption, java: [meteor, spice], data: {name: scenes, split: test}}
run: {output_dir: output/x}
"""
RECORDS = [
    {"evaluate": "vqa", "accuracy": 61.25, "accuracy_yes_no": 80.5, "accuracy_number": 40.0},
    {"evaluate": "nlvr", "accuracy": 82.5, "accuracy_false": 81.0, "consistency": 47.25},
    {"evaluate": "zero_shot_classification", "top1": 33.3, "top5": 66.6},
    {"evaluate": "caption", "meteor": "n/a: meteor failed: too <old>", "spice": 0.215},
]


def test_figures_of_all_tasks_are_shown_and_what_is_missing_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    lines = [json.dumps({"step": 2, **record, "seconds": 1.0}) for record in RECORDS]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "complete.json").write_text(json.dumps({"step": 2, "seconds": 6, "metrics": {}}))
    start = {"command": "python run.py", "device": "cpu", "processes": 1}
    (folder / "run.json").write_text(json.dumps(start))
    page = Path(report.report_pipeline(tmp_path, {"run": folder}, "Tasks")).read_text("utf-8")
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    for shown in (
        *("Answers to questions, accuracy in %", "61.2", "yes or no", "80.5"),
        *("Statements about two images, in %", "47.2", "Classes by their names alone", "66.6"),
        *("SPICE", "0.215", "questions answered right", "statements judged right"),
        "meteor n/a: meteor failed: too &lt;old&gt;.",
    ):
        assert shown in text, shown
    assert "METEOR" not in text  # no column without a figure
