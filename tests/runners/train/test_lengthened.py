"""A finished run is lengthened by more steps, and rows that have changed are named."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from toy_runs import records, run, toy_config, weights

from lavis_lite.errors import ConfigError
from lavis_lite.runners.data_identity import changes, identities
from lavis_lite.runners.sweep.plan import Job, _labels
from lavis_lite.runners.sweep.processes import Queue


def of_steps(folder: Path, steps: int, **changed: Any) -> Any:
    return toy_config(folder, run__max_steps=steps, **changed)


def test_a_finished_run_goes_on_to_more_steps_with_its_optimizer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(of_steps(tmp_path / "run", 6))
    before = records(tmp_path / "run")
    with caplog.at_level(logging.INFO):
        summary = run(of_steps(tmp_path / "run", 9))
    assert summary["step"] == 9
    assert "run.max_steps: 6 is now 9: the run is lengthened" in caplog.text
    assert "continues after step 6 of 9" in caplog.text
    steps = [r for r in records(tmp_path / "run") if "evaluate" not in r]
    assert [r["step"] for r in steps] == list(range(1, 10))
    assert steps[:6] == [r for r in before if "evaluate" not in r]
    assert json.loads((tmp_path / "run" / "complete.json").read_text())["step"] == 9
    assert weights(tmp_path / "run")


def test_fewer_steps_and_other_changes_are_refused_as_ever(tmp_path: Path) -> None:
    run(of_steps(tmp_path, 4))
    with pytest.raises(ConfigError, match="max_steps: 4 is now 3"):
        run(of_steps(tmp_path, 3))
    with pytest.raises(ConfigError, match=r"optim\.lr: .* is now 0\.5"):
        run(of_steps(tmp_path, 8, optim__lr=0.5))


class Rows:
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def annotation(self, index: int) -> dict[str, Any]:
        return {"key": str(index), "text_input": self.texts[index]}


def test_rows_that_have_changed_are_named_by_their_dataset() -> None:
    before = identities([Rows("a", "b"), Rows("c"), Rows("d")])
    now = identities([Rows("a", "b"), Rows("c", "e"), Rows("other")])
    assert changes(before, before, "data.train") == []
    assert changes(before, now, "data.train") == [
        "data.train[1]: 1 rows before, 2 now",
        "data.train[2]: 1 rows as before, other texts or keys",
    ]


def test_a_run_that_goes_on_with_other_rows_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(of_steps(tmp_path, 4))
    start = json.loads((tmp_path / "run.json").read_text())
    start["rows"][0]["rows"] += 1
    (tmp_path / "run.json").write_text(json.dumps(start))
    with caplog.at_level(logging.WARNING):
        run(of_steps(tmp_path, 6))
    assert "goes on with other data than it began with" in caplog.text
    assert "data.train[0]: " in caplog.text


def test_a_sweep_says_whose_run_begins_and_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lavis_lite.runners.sweep import processes

    now = [0.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])
    labels = _labels({("small", 0): {"run": "x"}, ("large", 0): {"run": "y"}})
    shared = _labels({("small", 0): {"a": "x"}, ("large", 1): {"a": "x", "b": "z"}})
    assert shared == {"x": "arm small, seed 0 and 1 more", "z": "arm large, seed 1"}
    jobs = {i: Job(i, "run", None, Path(f"run-{i}"), (), label) for i, label in labels.items()}
    queue = Queue(jobs)
    first, second = queue.take(), queue.take()
    assert first is not None
    assert second is not None
    assert queue.begins(first) == "[1/2] run-x begins: arm small, seed 0"
    now[0] = 90.0
    queue.finish(first, None)
    assert queue.begins(second) == (
        "[2/2] run-y begins: arm large, seed 0 (about 1 min 30 s left, at 1 min 30 s a run)"
    )
