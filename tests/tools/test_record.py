"""Records of runs that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_lite.errors import DataError
from tools.record import main, record


def finished_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    begun = {"command": "python run.py --cfg a.yaml", "environment": {"torch": "2"}, "pid": 7}
    (folder / "run.json").write_text(json.dumps(begun))
    (folder / "complete.json").write_text(json.dumps({"step": 3, "metrics": {"itm/auc": 0.5}}))
    return folder


def test_a_record_says_what_ran_where_and_what_came_out(tmp_path: Path) -> None:
    finished_run(tmp_path / "out")
    main([str(tmp_path / "out"), str(tmp_path / "kept" / "run.json")])
    assert json.loads((tmp_path / "kept" / "run.json").read_text()) == {
        "command": "python run.py --cfg a.yaml",
        "environment": {"torch": "2"},
        "step": 3,
        "metrics": {"itm/auc": 0.5},
    }


def test_a_pipeline_is_recorded_by_stage(tmp_path: Path) -> None:
    finished_run(tmp_path / "out" / "pretrain")
    (tmp_path / "out" / "pipeline.json").write_text(json.dumps({"pretrain": {}}))
    main([str(tmp_path / "out"), str(tmp_path / "kept.json")])
    assert json.loads((tmp_path / "kept.json").read_text())["pretrain"]["step"] == 3


def test_an_unfinished_run_is_not_recorded(tmp_path: Path) -> None:
    finished_run(tmp_path / "out")
    (tmp_path / "out" / "complete.json").unlink()
    with pytest.raises(DataError, match=r"complete\.json is missing"):
        record(tmp_path / "out")
