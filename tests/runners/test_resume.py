"""Killed, stopped, changed or finished: what happens when the same command is given again."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal

import pytest
import torch
from toy_runs import records, run, run_in_process, toy_config, toy_evaluator, weights

from lavis_lite.errors import ConfigError


def config_of(folder, **changes):
    """Twelve steps with everything that must survive: dropout, noise, momentum, a queue, fp16."""
    settled = {
        "run__precision": "fp16",
        "optim__accumulate": 2,
        "evaluate": [toy_evaluator()],
        "run__eval_every": 6,
    }
    return toy_config(folder, **{**settled, **changes})


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    torch.manual_seed(123)  # of no consequence
    run(config_of(folder))
    return folder


def assert_same_run(folder, expected):
    assert records(folder) == records(expected)
    ours, theirs = weights(folder), weights(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    newest = "checkpoints/step-00000012/state.pt"
    states = [torch.load(f / newest, weights_only=True) for f in (folder, expected)]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert str(states[0]["optimizer"]) == str(states[1]["optimizer"])


@pytest.mark.parametrize(
    ("fault", "workers", "workers_after"),
    [("kill:2", 0, 2), ("kill:5", 2, 0), ("kill:11", 0, 0), ("kill:7", 2, 1)],
)
def test_a_killed_run_continues_bit_for_bit(tmp_path, uninterrupted, fault, workers, workers_after):
    killed = run_in_process(config_of(tmp_path, data__num_workers=workers), fault)
    assert killed == -signal.SIGKILL
    run(config_of(tmp_path, data__num_workers=workers_after))
    assert_same_run(tmp_path, uninterrupted)


def test_a_kill_between_checkpoint_and_record_leaves_each_step_once(tmp_path, uninterrupted):
    # Records reach the disk before the checkpoint of their step and after it: both are cut back.
    run_in_process(config_of(tmp_path), "kill:9")
    steps = [r["step"] for r in records(tmp_path) if "loss" in r]
    assert steps == list(range(1, 10))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "lo')
    run(config_of(tmp_path))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ("fault", "code"), [("term:6", 128 + signal.SIGTERM), ("int:3", 128 + signal.SIGINT)]
)
def test_a_signal_finishes_the_step_saves_and_exits_with_its_code(
    tmp_path, uninterrupted, fault, code
):
    steps_done = int(fault[-1]) + 1
    assert run_in_process(config_of(tmp_path), fault) == code
    assert (tmp_path / "checkpoints" / f"step-{steps_done:08d}" / "manifest.json").exists()
    assert records(tmp_path)[-1]["step"] == steps_done
    run(config_of(tmp_path, run__keep_last=5))
    assert_same_run(tmp_path, uninterrupted)


def test_a_second_signal_exits_at_once(tmp_path):
    assert run_in_process(config_of(tmp_path), "twice:6") == 128 + signal.SIGTERM
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == ["step-00000004", "step-00000006"]  # and not what step 7 came to


def test_a_signal_during_an_evaluation_stops_there_and_the_evaluation_is_made_up_for(
    tmp_path, uninterrupted
):
    breaks = dataclasses.replace(toy_evaluator(), args={"signal_here": True})
    config = config_of(tmp_path, run__checkpoint_every=0, evaluate=[breaks])
    stopped = run_in_process(config, "evaluation")
    assert stopped == 128 + signal.SIGTERM
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    run(config)
    assert records(tmp_path) == records(uninterrupted)


def test_a_finished_run_does_nothing_and_says_so(tmp_path, uninterrupted, caplog):
    folder = copied(uninterrupted, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    with caplog.at_level("INFO"):
        summary = run(config_of(folder, run__log_every=3))
    assert "complete: nothing to do" in caplog.text
    assert summary == json.loads((folder / "complete.json").read_text())
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert {p for p in after if after[p] != before[p]} <= {folder / ".lock"}


def test_a_changed_config_is_refused_with_what_differs(tmp_path, uninterrupted):
    folder = copied(uninterrupted, tmp_path)
    changed = config_of(folder, optim__lr=0.5, run__max_steps=20, data__num_workers=1)
    with pytest.raises(ConfigError) as caught:
        run(changed)
    message = str(caught.value)
    assert "optim.lr: 0.02 is now 0.5" in message
    assert "run.max_steps: 12 is now 20" in message
    assert "num_workers" not in message
    assert "Use another run.output_dir" in message
    assert records(folder) == records(uninterrupted)


def test_a_config_may_change_while_there_is_no_checkpoint(tmp_path):
    run_in_process(toy_config(tmp_path), "kill:2")
    assert run(toy_config(tmp_path, optim__lr=0.5))["step"] == 12


def test_a_finished_run_measures_what_its_changed_config_asks_for(tmp_path, uninterrupted):
    folder = copied(uninterrupted, tmp_path)
    summary = run(config_of(folder, evaluate=[toy_evaluator(size=9)]))
    straight = records(uninterrupted)
    assert records(folder)[:-1] == straight[:-1]
    assert records(folder)[-1]["error"] != straight[-1]["error"]
    assert summary["metrics"] == {"toy_error/error": records(folder)[-1]["error"]}


def test_a_finished_run_without_checkpoints_does_not_start_anew(tmp_path, uninterrupted):
    folder = copied(uninterrupted, tmp_path)
    shutil.rmtree(folder / "checkpoints")
    assert run(config_of(folder))["step"] == 12
    with pytest.raises(ConfigError, match="its checkpoints are gone"):
        run(config_of(folder, evaluate=[toy_evaluator(size=9)]))


def test_another_runners_folder_is_refused(tmp_path, uninterrupted):
    folder = copied(uninterrupted, tmp_path)
    (folder / "run.json").write_text('{"runner": "evaluate"}')
    with pytest.raises(ConfigError, match="holds a 'evaluate' run, this is a 'train' run"):
        run(config_of(folder))


def test_initial_weights_are_not_needed_to_continue(tmp_path, uninterrupted):
    source = copied(uninterrupted, tmp_path)
    config = toy_config(tmp_path / "fine", model__checkpoint=str(source))
    assert run_in_process(config, "kill:6") == -signal.SIGKILL
    shutil.rmtree(source)
    assert run(config)["step"] == 12


def copied(folder, to):
    return shutil.copytree(folder, to / "copy")
