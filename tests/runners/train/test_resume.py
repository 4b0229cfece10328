"""Killed, stopped, changed or finished: what happens when the same command is given again."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from toy_runs import records, run, run_in_process, toy_config, toy_evaluator, weights

from lavis_lite.cli import main
from lavis_lite.config import to_yaml
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
    [
        pytest.param("kill:11", 0, 0, marks=pytest.mark.fault(8)),
        pytest.param("kill:6", 2, 2, marks=pytest.mark.fault(8)),
        pytest.param("kill:2", 0, 2, marks=pytest.mark.fault(9)),
        pytest.param("kill:5", 2, 0, marks=pytest.mark.fault(8, 9)),
        pytest.param("kill:7", 2, 1, marks=pytest.mark.fault(8, 9)),
    ],
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


@pytest.mark.fault(15)
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


@pytest.mark.fault(15)
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


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Killed after step 9: there are the checkpoints of steps 6 and 8."""
    folder = tmp_path_factory.mktemp("killed")
    assert run_in_process(config_of(folder), "kill:9") == -signal.SIGKILL
    return folder


def command(folder):
    """Give the command that continues the run in ``folder``; returns its exit code."""
    file = folder / "again.yaml"
    file.write_text(to_yaml(config_of(folder)))
    return main(["run", "--cfg", str(file)])


def cut(checkpoint, fraction):
    weights = checkpoint / "model.safetensors"
    os.truncate(weights, int(weights.stat().st_size * fraction))


@pytest.mark.fault(2)
@pytest.mark.parametrize("fraction", [0.5, 0])
def test_a_run_whose_newest_checkpoint_is_cut_continues_from_the_one_before(
    tmp_path, uninterrupted, killed, fraction, capsys
):
    folder = copied(killed, tmp_path)
    cut(folder / "checkpoints" / "step-00000008", fraction)
    assert command(folder) == 0
    assert "cannot use a checkpoint, trying the one before" in capsys.readouterr().err
    assert_same_run(folder, uninterrupted)


@pytest.mark.fault(2)
def test_a_run_with_no_whole_checkpoint_left_ends_with_code_3_and_changes_nothing(
    tmp_path, killed, capsys
):
    folder = copied(killed, tmp_path)
    for step in (6, 8):
        cut(folder / "checkpoints" / f"step-{step:08d}", 0.5)
    before = records(folder)
    assert command(folder) == 3
    assert "none of its 2 checkpoints is whole" in capsys.readouterr().err
    assert records(folder) == before
    assert not (folder / "complete.json").exists()


@pytest.mark.fault(11)
def test_a_run_of_an_earlier_release_continues_with_the_losses_that_it_had(tmp_path):
    """tests/golden/earlier_run: begun by commit 268d6d9, with the records of its whole run.

    Of its checkpoint, at step 4 of 12, this release must make the same steps 5 to 12. On the
    machine that recorded them they are equal; elsewhere a sum may round otherwise.
    """
    golden = Path(__file__).resolve().parents[2] / "golden" / "earlier_run"
    folder = copied(golden, tmp_path)
    run(toy_config(folder, optim__accumulate=2))
    ours, theirs = records(folder), records(golden)
    assert [r["step"] for r in ours] == list(range(1, 13))
    for mine, recorded in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(recorded, rel=1e-5)


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
