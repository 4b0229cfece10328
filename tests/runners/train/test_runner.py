"""The training loop on a toy model: what it learns, logs, saves and refuses to step on."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from toy_runs import (
    TOYS,
    build,
    hold_folder,
    records,
    run,
    toy_config,
    toy_evaluator,
    train,
    weights,
)

from lavis_lite.checkpoint.checkpointer import read_manifest
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.config.schema import Evaluator, TrainDataset
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.registry.component import Component
from lavis_lite.runners.train.loop import train_step


def train_records(folder):
    return [record for record in records(folder) if "evaluate" not in record]


def test_the_loss_falls(tmp_path):
    run(toy_config(tmp_path, run__max_steps=60))
    losses = [record["loss"] for record in train_records(tmp_path)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_record_has_step_losses_rate_norm_and_speed(tmp_path):
    run(toy_config(tmp_path, run__log_every=5, evaluate=[toy_evaluator()]))
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 5, 10, 12, 12]
    train = ["step", "loss", "loss_fit", "lr", "grad_norm", "samples_per_second"]
    assert [list(line) for line in lines[:4]] == [train] * 4
    assert list(lines[4]) == ["step", "evaluate", "error", "seconds", "counts"]
    assert lines[0]["lr"] == pytest.approx(0.02 / 3)  # step 1 of a warm-up of three
    assert lines[1]["loss"] == lines[1]["loss_fit"] > 0


def test_the_folder_holds_all_that_the_run_leaves(tmp_path):
    summary = run(toy_config(tmp_path, evaluate=[toy_evaluator()]))
    assert json.loads((tmp_path / "complete.json").read_text()) == summary
    assert summary["step"] == 12
    assert summary["metrics"]["toy_error/error"] == records(tmp_path)[-1]["error"]
    rows = (tmp_path / "predictions" / "toy_error.jsonl").read_text().splitlines()
    assert [json.loads(row)["key"] for row in rows] == [f"row-{i}" for i in range(6)]
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000012"]
    assert json.loads((tmp_path / "run.json").read_text())["environment"]["torch"]


def test_the_written_config_is_the_config_of_the_run(tmp_path):
    from lavis_lite.config import load

    config = toy_config(tmp_path, run__max_steps=1)
    run(config)
    assert load(tmp_path / "config.yaml") == config


def test_accumulated_micro_batches_learn_what_one_large_batch_learns(tmp_path):
    same = {"model__args": {"dropout": 0.0}}
    run(toy_config(tmp_path / "one", **same, data__batch_size=6))
    run(toy_config(tmp_path / "three", **same, data__batch_size=2, optim__accumulate=3))
    large, small = weights(tmp_path / "one"), weights(tmp_path / "three")
    for name in large:
        if name != "queue":  # holds the outputs of the last micro-batches
            torch.testing.assert_close(small[name], large[name], rtol=1e-5, atol=1e-6)
    losses = [[r["loss"] for r in train_records(tmp_path / x)] for x in ("one", "three")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_clipping_bounds_the_step_and_the_record_shows_the_norm_before_it(tmp_path):
    config = toy_config(tmp_path, optim__clip_norm=1e-3, run__max_steps=2)
    training = build(config)
    train(training)
    assert train_records(tmp_path)[0]["grad_norm"] > 1e-3
    batches = iter([b for b in training.data.batches(0, 1)])
    seen = []
    training.precision.step = lambda optimizer: seen.append(
        torch.nn.utils.get_total_norm(
            [p.grad for p in training.model.parameters() if p.requires_grad]
        )
    )
    training.progress.step = 0
    train_step(training, batches)
    assert seen[0] <= 1e-3 * 1.0001


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_and_saves_its_scale(tmp_path, precision):
    config = toy_config(tmp_path, run__precision=precision, run__max_steps=40)
    training = build(config)
    dtypes = []
    training.model.inner.register_forward_hook(lambda *a: dtypes.append(a[2].dtype))
    train(training)
    assert set(dtypes) == {torch.bfloat16 if precision == "bf16" else torch.float16}
    losses = [record["loss"] for record in train_records(tmp_path)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    state = torch.load(tmp_path / "checkpoints" / "step-00000040" / "state.pt", weights_only=True)
    assert bool(state["scaler"]) == (precision == "fp16")


def test_an_fp16_scale_that_is_too_high_adapts_without_counting_as_a_failure(tmp_path):
    config = toy_config(tmp_path, run__precision="fp16", run__max_skipped_steps=0)
    training = build(config)
    training.precision.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    train(training)
    assert training.skipped.total > 3
    assert training.skipped.in_a_row == 0
    assert all(torch.isfinite(w).all() for w in weights(tmp_path).values())


def test_zero_steps_only_evaluate(tmp_path):
    config = toy_config(tmp_path, run__max_steps=0, evaluate=[toy_evaluator()], data__train=[])
    summary = run(config)
    assert [r["evaluate"] for r in records(tmp_path)] == ["toy_error"]
    assert summary["step"] == 0
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_at_its_prior_is_warned_about_once(tmp_path, caplog):
    config = toy_config(tmp_path, run__max_steps=50, model__args={"guess": True})
    with caplog.at_level(logging.INFO):
        run(config)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 1
    assert warned[0].startswith("guess is 0.6931 after 10 of 50 steps: guessing gives 0.6931")
    assert "guess 0.6931 (guessing 0.693)" in caplog.text


def test_a_loss_below_its_prior_is_not_warned_about(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(TOYS.FitTarget, "prior", 0.5, raising=False)
    run(toy_config(tmp_path, run__max_steps=40))
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.fault(17)
def test_a_step_that_is_not_finite_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "nan:5-7")
    run(toy_config(tmp_path))
    lines = train_records(tmp_path)
    assert [line["loss"] is None for line in lines] == [i in (5, 6, 7) for i in range(12)]
    assert [line.get("skipped") for line in lines] == [None] * 5 + [1, 2] + [3] * 5
    final = weights(tmp_path)
    assert all(torch.isfinite(w).all() for w in final.values())
    assert final["momentum_updates"] == 9


@pytest.mark.fault(17)
def test_skipped_steps_leave_every_tensor_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "nan:4-7")
    run(toy_config(tmp_path, run__max_skipped_steps=4, run__keep_last=3))
    before, after = (
        read_weights(str(tmp_path / "checkpoints" / step))
        for step in ("step-00000004", "step-00000008")
    )
    assert before["head_m.weight"].count_nonzero()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.fault(17)
def test_too_many_such_steps_in_a_row_stop_the_run_and_name_their_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "nan:5-99")
    with pytest.raises(FloatingPointError, match=r"4 steps in a row.*allows 3.*bad_batch.json"):
        run(toy_config(tmp_path))
    steps = json.loads((tmp_path / "bad_batch.json").read_text())["steps"]
    assert [step["step"] for step in steps] == [6, 7, 8, 9]
    assert [len(step["keys"]) for step in steps] == [4] * 4
    assert steps[0]["losses"]["loss"] == "nan"
    assert steps[0]["rank"] == 0
    monkeypatch.delenv("TOY_FAULT")
    assert run(toy_config(tmp_path))["step"] == 12  # from the checkpoint of step 4


@pytest.mark.parametrize(("every", "kept"), [(0, []), (12, ["step-00000012"])])
def test_a_run_that_ends_in_nans_is_not_complete_nor_after_a_restart(
    tmp_path, monkeypatch, every, kept
):
    monkeypatch.setenv("TOY_FAULT", "nan:10-11")
    config = toy_config(tmp_path, run__checkpoint_every=every, evaluate=[toy_evaluator()])
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="in 2 steps in a row, the last of the run"):
            run(config)
        assert not (tmp_path / "complete.json").exists()
        assert [path.name for path in (tmp_path / "checkpoints").glob("step-*")] == kept
        assert not [r for r in records(tmp_path) if "evaluate" in r]
        steps = json.loads((tmp_path / "bad_batch.json").read_text())["steps"]
        assert [step["step"] for step in steps] == [11, 12]


def test_the_best_checkpoint_is_kept(tmp_path):
    config = toy_config(
        tmp_path, evaluate=[toy_evaluator()], run__keep_best="toy_error/error",
        run__keep_last=1, run__eval_every=3, run__checkpoint_every=0,
    )  # fmt: skip
    run(config)
    figures = {r["step"]: r["error"] for r in records(tmp_path) if "evaluate" in r}
    assert sorted(figures) == [3, 6, 9, 12]
    best = max(figures, key=figures.get)
    kept = sorted((tmp_path / "checkpoints").iterdir())
    assert {path.name for path in kept} == {f"step-{best:08d}", "step-00000012"}
    manifest = read_manifest(tmp_path / "checkpoints" / f"step-{best:08d}")
    assert manifest["metrics"] == {"toy_error/error": figures[best]}


def test_compiling_keeps_the_names_of_weights(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **_: calls.append(type(self).__name__)
    )
    run(toy_config(tmp_path, run__compile=True, run__max_steps=2))
    assert calls == ["ToyModel"]
    assert "inner.weight" in weights(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__train": []}, "data.train: name at least one dataset"),
        ({"optim__betas": [0.9]}, "optim.betas: two numbers, not 1"),
        ({"optim__betas": [0.9, 1.0]}, "optim.betas: at least 0 and below 1, not"),
        ({"optim__betas": [-0.1, 0.9]}, "optim.betas: at least 0 and below 1, not"),
        ({"optim__eps": 0.0}, "optim.eps: above 0, not 0.0"),
        ({"optim__schedule": "step"}, "optim.decay_steps: the `step` schedule needs"),
        ({"run__keep_best": "toy_eror/x", "evaluate": [toy_evaluator()]}, "mean 'toy_error'"),
        ({"run__device": "cuda:63"}, "cuda"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        run(toy_config(tmp_path / "new", **changes))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("inside", ["", "run/deeper"])
def test_an_output_folder_that_cannot_be_made_is_a_wrong_key(tmp_path, inside):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"^run\.output_dir: .* cannot be written: \w+"):
        run(toy_config(tmp_path / "file" / inside))


def test_an_output_folder_that_cannot_be_written_is_a_wrong_key(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lavis_lite.runners.run_folder.open", refuse, raising=False)
    with pytest.raises(ConfigError, match=r"^run\.output_dir: .* cannot be written: Permission"):
        run(toy_config(tmp_path))


def test_a_model_without_losses_is_told_so(tmp_path, monkeypatch):
    original = TOYS.ToyModel.__init__

    def without_losses(self):
        original(self)
        self.losses.clear()

    monkeypatch.setattr(TOYS.ToyModel, "__init__", without_losses)
    with pytest.raises(ConfigError, match=r"model\.losses: name at least one"):
        run(toy_config(tmp_path))


@pytest.mark.parametrize("part", ["data__train", "evaluate"])
def test_a_missing_dataset_leaves_no_folder_behind(tmp_path, part):
    data = Component("json", {"path": str(tmp_path / "none.json")})
    train = TrainDataset(data.name, data.args)
    value = Evaluator("toy_error", {}, data=data) if part == "evaluate" else train
    with pytest.raises(DataError, match=r"none\.json"):
        run(toy_config(tmp_path / "new", **{part: [value]}))
    assert not (tmp_path / "new").exists()


def test_a_finished_run_needs_its_data_no_more(tmp_path, monkeypatch):
    config = toy_config(tmp_path, run__max_steps=1)
    summary = run(config)
    monkeypatch.setattr(TOYS.ToyRows, "__init__", lambda self: 1 / 0)
    assert run(config) == summary


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        hold_folder(tmp_path) as holder,
        pytest.raises(ConfigError, match=f"process {holder} is running in"),
    ):
        run(toy_config(tmp_path))
    assert run(toy_config(tmp_path, run__max_steps=1))["step"] == 1
