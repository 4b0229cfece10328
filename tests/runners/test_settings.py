"""Which changes of a config make it another run."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from toy_runs import toy_config, toy_evaluator

from lavis_lite.config.schema import CheckpointingConfig, TrainConfig
from lavis_lite.registry.component import Component
from lavis_lite.runners.settings import (
    at_default,
    differences,
    fingerprint,
    settings,
    without_effect,
)


def changed(evaluation=True, **changes):
    return differences(
        settings(toy_config("a")), settings(toy_config("a", **changes)), evaluation=evaluation
    )


def test_a_difference_names_the_key_and_both_values():
    assert changed(optim__lr=0.1) == ["optim.lr: 0.02 is now 0.1"]
    assert changed(model__args={"width": 9}) == ["model.width: 9 is new"]


def test_what_changes_no_result_is_no_difference():
    found = changed(
        run__output_dir="elsewhere",
        run__log_every=7,
        run__loggers=["tensorboard"],
        run__device="cuda",
        run__num_threads=3,
        data__num_workers=4,
        run__checkpoint_every=1,
        run__gradient_checkpointing=CheckpointingConfig(vision=-1),
        plugins=["moved/toy.py"],
    )
    assert found == []


@dataclass(frozen=True)
class PatientConfig(TrainConfig):
    """Of a runner that says itself what changes no result."""

    without_effect: ClassVar = ("runner.patience", "optim.betas")


def test_a_runner_s_config_says_what_else_changes_no_result():
    toy = toy_config("a")
    sections = {field.name: getattr(toy, field.name) for field in fields(toy)}
    runner = Component("patient", {"patience": 3, "rest": 1})
    optim = replace(toy.optim, betas=[0.1, 0.2])
    old = PatientConfig(**sections)
    new = replace(old, runner=runner, optim=optim)
    ignored = without_effect(new)
    expected = ["runner.name: 'train' is now 'patient'", "runner.rest: 1 is new"]
    assert differences(settings(old), settings(new), ignored=ignored) == expected
    back = replace(new, runner=old.runner)
    same = fingerprint(settings(old), ignored=ignored)
    assert fingerprint(settings(back), ignored=ignored) == same
    assert fingerprint(settings(back)) != same


def test_what_is_evaluated_counts_only_where_it_is_asked_for():
    assert changed(evaluate=[toy_evaluator()]) != []
    assert changed(evaluation=False, evaluate=[toy_evaluator()]) == []


def test_two_processes_may_become_one_with_twice_the_batch():
    two = settings(toy_config("a", data__batch_size=4), processes=2)
    assert differences(two, settings(toy_config("a", data__batch_size=8))) == []
    assert differences(two, settings(toy_config("a", data__batch_size=4))) == [
        "data.batch_size of all processes: 8 is now 4"
    ]


def test_the_fingerprint_follows_what_is_learnt_and_what_it_builds_on():
    one = fingerprint(settings(toy_config("a")))
    assert one == fingerprint(settings(toy_config("b", evaluate=[toy_evaluator()])))
    assert one != fingerprint(settings(toy_config("a", run__seed=1)))
    assert one != fingerprint(settings(toy_config("a")), "another input")


def test_an_option_that_came_later_and_is_not_used_changes_nothing() -> None:
    assert differences({"optim.lr": 1.0}, {"optim.lr": 1.0, "optim.lora": None}) == []
    assert differences({"optim.lora": None}, {"optim.lora.rank": 8}) == [
        "optim.lora.rank: 8 is new"
    ]


def test_an_option_that_came_later_and_stands_at_its_default_changes_nothing() -> None:
    new = toy_config("a", evaluate=[toy_evaluator()])
    unused = set(at_default(new))
    assert {"optim.freeze", "optim.ema_decay", "data.train[0].weight", "run.seed"} <= unused
    assert not {"optim.lr", "model.name", "data.train[0].name", "evaluate[0].name"} & unused
    old = {k: v for k, v in settings(new).items() if k not in ("optim.freeze", "optim.ema_decay")}
    assert differences(old, settings(new), unused=unused) == []
    used = toy_config("a", evaluate=[toy_evaluator()], optim__ema_decay=0.9)
    assert differences(old, settings(used), unused=set(at_default(used))) == [
        "optim.ema_decay: 0.9 is new"
    ]


def test_secrets_that_an_earlier_release_wrote_down_change_nothing_and_are_not_shown() -> None:
    old = {"data.api_key": "hunter2", "model.checkpoint": "https://h/w?sig=hunter2", "optim.lr": 1}
    new = {"data.api_key": "REDACTED", "model.checkpoint": "https://h/w?sig=REDACTED"}
    assert differences(old, new | {"optim.lr": 1}) == []
    assert "hunter2" not in str(differences(old, {}))
