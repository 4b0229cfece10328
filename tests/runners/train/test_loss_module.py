"""Two processes: they learn what one learns from the joined batch, and stop together."""

from __future__ import annotations

import json
import os
import re

import pytest
import torch
from toy_runs import build, records, run, toy_config, toy_evaluator, train, weights
from two_processes import ProcessFailed, run_on_two_processes

from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.runners.train import build as build_module
from lavis_lite.runners.train.runner import TrainRunner


def without_dropout(folder, **changes):
    return toy_config(folder, model__args={"dropout": 0.0}, **changes)


def run_with_fault(config, fault=""):
    os.environ["TOY_FAULT"] = fault
    return run(config)


def assert_close(folder, expected):
    ours, theirs = weights(folder), weights(expected)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
    for mine, its in zip(records(folder), records(expected), strict=True):
        assert mine.pop("evaluate", "") == its.pop("evaluate", "")
        assert mine.pop("loss", 0) == pytest.approx(its.pop("loss", 0), rel=1e-5)
        assert mine.pop("counts", None) == its.pop("counts", None)
        assert mine == pytest.approx(its, rel=1e-4)


def test_two_processes_learn_what_one_learns_from_the_joined_batch(tmp_path):
    same = {"evaluate": [toy_evaluator()], "run__eval_every": 6, "optim__accumulate": 2}
    two = without_dropout(tmp_path / "two", data__batch_size=2, **same)
    summaries = run_on_two_processes(run, two)
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    run(without_dropout(tmp_path / "one", data__batch_size=4, **same))
    assert_close(tmp_path / "two", tmp_path / "one")


@pytest.mark.fault(10)
@pytest.mark.parametrize("first", [1, 2])
def test_one_process_may_take_over_from_two_and_two_from_one(tmp_path, first, monkeypatch):
    def config(processes, folder="part"):
        return without_dropout(tmp_path / folder, data__batch_size=4 // processes)

    if first == 2:
        with pytest.raises(ProcessFailed, match="SystemExit: 143"):
            run_on_two_processes(run_with_fault, config(2), "term:5@1")
        run(config(1))
    else:
        monkeypatch.setenv("TOY_FAULT", "term:5")
        with pytest.raises(SystemExit, match="143"):
            run(config(1))
        monkeypatch.delenv("TOY_FAULT")
        run_on_two_processes(run, config(2))
    assert [r["step"] for r in records(tmp_path / "part")] == list(range(1, 13))
    run(config(1, "straight"))
    assert_close(tmp_path / "part", tmp_path / "straight")


@pytest.mark.fault(15)
def test_a_signal_to_one_process_stops_both_after_the_same_step(tmp_path):
    with pytest.raises(ProcessFailed) as failed:
        run_on_two_processes(run_with_fault, without_dropout(tmp_path), "term:5@1")
    assert all("SystemExit: 143" in text for text in failed.value.errors.values())
    assert len(failed.value.errors) == 2
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]


@pytest.mark.fault(17)
@pytest.mark.parametrize("fault", ["nan", "nanloss", "infgrad"])
def test_one_processs_nan_keeps_all_from_stepping(tmp_path, fault):
    # A NaN loss with sound gradients: only by asking the others does rank 0 learn of it.
    config = without_dropout(tmp_path, run__checkpoint_every=1, run__keep_last=12)
    run_on_two_processes(run_with_fault, config, f"{fault}:5@1")
    lines = records(tmp_path)
    assert [line.get("skipped") for line in lines] == [None] * 5 + [1] * 7
    before, after, last = (
        read_weights(str(tmp_path / "checkpoints" / f"step-{step:08d}")) for step in (5, 6, 12)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(after["inner.weight"], last["inner.weight"])
    assert all(torch.isfinite(w).all() for w in last.values())


@pytest.mark.fault(17)
def test_too_many_nans_of_one_process_stop_both_and_name_the_samples_of_both(tmp_path):
    with pytest.raises(ProcessFailed) as failed:
        run_on_two_processes(run_with_fault, without_dropout(tmp_path), "nan:5-99@1")
    assert all("FloatingPointError" in text for text in failed.value.errors.values())
    steps = json.loads((tmp_path / "bad_batch.json").read_text())["steps"]
    assert [(s["step"], s["rank"]) for s in steps] == [(n, r) for n in (6, 7, 8, 9) for r in (0, 1)]
    assert [s["losses"]["loss"] == "nan" for s in steps[:2]] == [False, True]


@pytest.mark.fault(16)
def test_one_process_that_raises_stops_the_other_which_says_who_failed(tmp_path):
    with pytest.raises(ProcessFailed) as failed:
        run_on_two_processes(run_with_fault, without_dropout(tmp_path), "raise:5@1")
    assert "ValueError: the toy breaks" in failed.value.errors[1]
    assert re.search(r"SystemExit: 1\b", failed.value.errors[0])


@pytest.mark.fault(14)
def test_a_process_that_hangs_in_a_step_ends_the_other_which_names_it(tmp_path):
    with pytest.raises(ProcessFailed) as failed:
        run_on_two_processes(run_hanging, without_dropout(tmp_path), timeout=8)
    assert failed.value.errors[1] == "still running at the deadline"
    assert "ProcessLost: rank 0: all_gather failed" in failed.value.errors[0]
    assert "because rank 1 did not take part" in failed.value.errors[0]


def run_hanging(config):
    os.environ["TOY_FAULT"] = "hang:5@1"
    TrainRunner(config).run()


def train_with_unused(folder):
    training = build(toy_config(folder, model__args={"unused": True, "dropout": 0.0}))
    train(training)
    return training.loss_module.find_unused_parameters


def finds_unused(folder):
    training = build(without_dropout(folder))
    train(training)
    return training.loss_module.find_unused_parameters


def test_parameters_that_get_no_gradient_are_found_and_do_not_stop_training(tmp_path):
    assert run_on_two_processes(train_with_unused, tmp_path / "some") == [True, True]
    assert run_on_two_processes(finds_unused, tmp_path / "none") == [False, False]


def one_small_step(folder):
    run(without_dropout(folder, data__batch_size=1, run__max_steps=1))


def test_looking_for_unused_parameters_leaves_no_trace(tmp_path):
    run_on_two_processes(one_small_step, tmp_path)
    after = weights(tmp_path)
    assert after["momentum_updates"] == 1
    assert after["queue"].count_nonzero() == 2  # one sample of each process, and none before


@pytest.mark.parametrize("max_steps", [0, 4])
def test_a_run_with_no_step_left_evaluates_and_completes(tmp_path, max_steps):
    config = without_dropout(tmp_path, run__max_steps=max_steps, evaluate=[toy_evaluator()])
    first = run_on_two_processes(run, config)[0]
    (tmp_path / "complete.json").unlink()  # as if killed during the final evaluation
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
    again = run_on_two_processes(run, config)[0]
    assert again["metrics"] == first["metrics"]
    assert (again["step"], len(records(tmp_path))) == (max_steps, len(lines))


def test_a_finished_run_measures_what_its_changed_config_asks_for(tmp_path):
    config = without_dropout(tmp_path, run__max_steps=1)
    run_on_two_processes(run, config)
    changed = without_dropout(tmp_path, run__max_steps=1, evaluate=[toy_evaluator()])
    assert "toy_error/error" in run_on_two_processes(run, changed)[0]["metrics"]
    assert (tmp_path / "complete.json").exists()


def samples_judged(folder):
    judged, loaders = {}, []
    seen, build_data = Quarantine.seen, build_module.build_data

    def count(self, num_samples):
        judged[self] = judged.get(self, 0) + num_samples
        seen(self, num_samples)

    def note(config, datasets, model, quarantine, num_workers, stored):
        loaders.append(num_workers)  # none are started: tests' processes start no others
        return build_data(config, datasets, model, quarantine, 0, stored)

    Quarantine.seen, build_module.build_data = count, note
    training = build(without_dropout(folder, run__max_steps=2, data__num_workers=1))
    train(training)
    return judged[training.quarantine], loaders


def test_looking_for_unused_parameters_counts_no_samples_and_starts_no_workers(tmp_path):
    assert run_on_two_processes(samples_judged, tmp_path) == [(2 * 4, [1, 0])] * 2
