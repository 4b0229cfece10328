"""The moving average of the weights: what it is, that it survives a kill, that it is evaluated."""

from __future__ import annotations

import signal

import pytest
import torch
from toy_runs import TOYS, build, records, run, run_in_process, toy_config, toy_evaluator, weights

from lavis_lite import create_model
from lavis_lite.checkpoint.weights import load_state, read_weights
from lavis_lite.errors import ConfigError
from lavis_lite.runners.train import loop
from lavis_lite.runners.train.hooks import Hook, build_hooks
from lavis_lite.runners.train.runner import TrainRunner
from lavis_lite.runners.train.weight_average import WeightAverage

LAST = "checkpoints/step-00000012"


def averaged(folder):
    return read_weights(folder / LAST / "ema.safetensors")


def test_it_is_the_recurrence_over_the_weights_after_each_step(tmp_path):
    training = build(toy_config(tmp_path, optim__ema_decay=0.9))

    def trained():
        named = training.model.named_parameters()
        return {k: p.detach().clone() for k, p in named if "_m" not in k}

    expected = trained()

    class Follow(Hook):
        def after_step(self, training, result):
            for name, value in trained().items():
                expected[name] = expected[name] * 0.9 + value * (1 - 0.9)

    loop.train(training, [Follow(), *build_hooks(training)])
    found, last = averaged(tmp_path), weights(tmp_path)
    assert found.keys() == last.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7)
        assert not torch.equal(found[name], last[name])
    assert torch.equal(found["queue"], last["queue"])
    assert torch.equal(found["head_m.weight"], last["head_m.weight"])


def test_the_trained_weights_are_those_of_a_run_without_average(tmp_path):
    run(toy_config(tmp_path / "with", optim__ema_decay=0.5, evaluate=[toy_evaluator()]))
    run(toy_config(tmp_path / "without", evaluate=[toy_evaluator()]))
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert records(tmp_path / "with") == records(tmp_path / "without")
    assert not (tmp_path / "without" / LAST / "ema.safetensors").exists()


def test_a_killed_run_continues_its_average_bit_for_bit(tmp_path):
    both = {
        "optim__ema_decay": 0.8,
        "run__eval_weights": "ema",
        "run__eval_every": 4,
        "evaluate": [toy_evaluator()],
    }
    run(toy_config(tmp_path / "straight", **both))
    killed = run_in_process(toy_config(tmp_path / "killed", **both), "kill:6")
    assert killed == -signal.SIGKILL
    run(toy_config(tmp_path / "killed", **both))
    assert records(tmp_path / "killed") == records(tmp_path / "straight")
    for read in (averaged, weights):
        one, other = read(tmp_path / "straight"), read(tmp_path / "killed")
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_skipped_step_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "nan:5")
    steps = []
    monkeypatch.setattr(WeightAverage, "update", lambda self: steps.append(self))
    run(toy_config(tmp_path, optim__ema_decay=0.5))
    assert len(steps) == 11


def test_the_weights_that_are_evaluated_can_be_chosen(tmp_path):
    config = {"optim__ema_decay": 0.9, "evaluate": [toy_evaluator()]}
    figures = {
        chosen: run(toy_config(tmp_path / chosen, run__eval_weights=chosen, **config))["metrics"]
        for chosen in ("trained", "ema")
    }
    assert figures["trained"] != figures["ema"]
    again = toy_config(
        tmp_path / "again",
        model__checkpoint=str(tmp_path / "ema" / LAST / "ema.safetensors"),
        run__max_steps=0,
        data__train=[],
        evaluate=[toy_evaluator()],
    )
    assert run(again)["metrics"] == figures["ema"]


def test_a_finished_run_evaluates_its_other_weights_without_training_again(tmp_path):
    config = {"optim__ema_decay": 0.9, "evaluate": [toy_evaluator()]}
    trained = run(toy_config(tmp_path, **config))["metrics"]
    summary = run(toy_config(tmp_path, run__eval_weights="ema", **config))
    assert summary["metrics"] != trained
    assert len(records(tmp_path)) == 13


def test_a_model_has_its_own_weights_again_after_an_evaluation_that_fails():
    model = create_model("blip_caption", "tiny")
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    token = before["visual_encoder.cls_token"]

    def fail():
        with average.applied():
            torch.testing.assert_close(model.visual_encoder.cls_token.data, token - 1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    load_state(create_model("blip_caption", "tiny"), average.state_dict())  # whole, ties included


def test_frozen_parts_need_no_average(tmp_path):
    model = TOYS.ToyModel()
    model.inner.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    assert average.state_dict()["inner.weight"].data_ptr() == model.inner.weight.data_ptr()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"optim__ema_decay": 1.0}, r"optim.ema_decay: below 1, not 1.0"),
        ({"run__eval_weights": "ema"}, r"run.eval_weights: 'ema', but optim.ema_decay is 0"),
        ({"optim__layer_decay": 0.0}, r"optim.layer_decay: above 0 and at most 1, not 0.0"),
        ({"optim__layer_decay": 1.5}, r"optim.layer_decay: above 0 and at most 1, not 1.5"),
    ],
)
def test_switches_that_make_no_sense_are_refused_before_anything_is_built(
    tmp_path, changes, problem
):
    with pytest.raises(ConfigError, match=problem):
        TrainRunner(toy_config(tmp_path, **changes))
