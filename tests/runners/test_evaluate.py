"""The runner `evaluate`, and what evaluators are called."""

from __future__ import annotations

import json

import pytest
import torch
from toy_runs import TOYS, records, run, toy_config, toy_evaluator
from two_processes import run_on_two_processes

from lavis_lite.config.evaluators import evaluator_names
from lavis_lite.config.schema import EvaluateConfig, Evaluator
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.modules.interfaces import Evaluation
from lavis_lite.registry.component import Component
from lavis_lite.runners.evaluate import EvaluationContext, Evaluations
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.run_folder import RunFolder


def evaluator(metric, dataset="scenes", **args):
    return Evaluator(metric, {}, data=Component(dataset, args))


@pytest.mark.parametrize(
    ("evaluators", "names"),
    [
        ([evaluator("caption"), evaluator("retrieval")], ["caption", "retrieval"]),
        (
            [evaluator("caption"), evaluator("caption", "mine"), evaluator("retrieval")],
            ["caption_scenes", "caption_mine", "retrieval"],
        ),
        (
            [evaluator("caption", split="test"), evaluator("caption", split="human")],
            ["caption_scenes_test", "caption_scenes_human"],
        ),
        (
            [evaluator("caption", size=1), evaluator("caption", size=2), evaluator("facts")],
            ["caption", "caption_2", "facts"],
        ),
        ([evaluator("mine/exact")], ["mine-exact"]),
    ],
)
def test_evaluators_get_distinct_readable_names(evaluators, names):
    assert evaluator_names(evaluators) == names


def evaluate_config(folder, trained=None, **changes):
    train = toy_config(folder, model__checkpoint=trained, **changes)
    return EvaluateConfig(
        runner=Component("evaluate"),
        model=train.model,
        evaluate=train.evaluate or [toy_evaluator()],
        run=train.run,
        data=train.data,
        plugins=train.plugins,
    )


def test_it_computes_what_training_found_at_its_end(tmp_path):
    trained = run(toy_config(tmp_path / "train", evaluate=[toy_evaluator()]))
    found = run(evaluate_config(tmp_path / "test", str(tmp_path / "train")))
    assert found["metrics"] == trained["metrics"]
    assert json.loads((tmp_path / "test" / "complete.json").read_text()) == found
    figure = found["metrics"]["toy_error/error"]
    counts = {"rows": {"seen": 6, "used": 6, "set_aside": {}, "left_out": {}}}
    record = {"step": 0, "evaluate": "toy_error", "error": figure, "counts": counts}
    assert records(tmp_path / "test") == [record]


def test_run_again_it_replaces_its_figures(tmp_path):
    evaluators = [toy_evaluator(), toy_evaluator(size=7)]
    config = evaluate_config(tmp_path, evaluate=evaluators)
    first, second = run(config), run(config)
    assert first["metrics"] == second["metrics"]
    assert [r["evaluate"] for r in records(tmp_path)] == ["toy_error", "toy_error_2"]
    names = sorted(path.name for path in (tmp_path / "predictions").iterdir())
    assert names == ["toy_error.jsonl", "toy_error_2.jsonl"]


def test_it_does_not_write_over_a_training_run(tmp_path):
    run(toy_config(tmp_path, run__max_steps=1))
    with pytest.raises(ConfigError, match="holds a 'train' run, this is a 'evaluate' run"):
        run(evaluate_config(tmp_path))
    assert (tmp_path / "complete.json").exists()


def test_an_evaluation_of_nothing_is_refused(tmp_path):
    config = evaluate_config(tmp_path)
    config.evaluate.clear()
    with pytest.raises(ConfigError, match="name at least one metric"):
        run(config)


def test_unreadable_samples_are_quarantined_and_left_out(tmp_path, monkeypatch):
    original = TOYS.ToyRows.__getitem__

    def with_a_hole(self, index):
        return original(self, index) | ({"image": b"no image"} if index == 2 else {})

    monkeypatch.setattr(TOYS.ToyRows, "__getitem__", with_a_hole)
    run(evaluate_config(tmp_path))
    rows = (tmp_path / "predictions" / "toy_error.jsonl").read_text().splitlines()
    assert [json.loads(row)["key"] for row in rows] == [f"row-{i}" for i in (0, 1, 3, 4, 5)]
    bad = json.loads((tmp_path / "quarantine.jsonl").read_text())
    assert bad["index"] == 2


def evaluate_here(folder):
    return run(evaluate_config(folder, evaluate=[toy_evaluator(size=7)]))["metrics"]


def test_two_processes_find_what_one_finds(tmp_path):
    two = run_on_two_processes(evaluate_here, tmp_path / "two")
    one = evaluate_here(tmp_path / "one")
    assert two[0] == two[1]
    assert two[0] == pytest.approx(one, rel=1e-6)
    rows = [(tmp_path / x / "predictions/toy_error.jsonl").read_text() for x in ("one", "two")]
    assert [json.loads(x)["key"] for x in rows[1].splitlines()] == [f"row-{i}" for i in range(7)]
    assert len(rows[0].splitlines()) == 7


def test_a_missing_dataset_leaves_no_folder_behind(tmp_path):
    data = Component("json", {"path": str(tmp_path / "none.json")})
    missing = Evaluator("toy_error", {}, data=data)
    with pytest.raises(DataError, match=r"none\.json"):
        run(evaluate_config(tmp_path / "new", evaluate=[missing]))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_for_a_gpu_come_from_pinned_memory(tmp_path, monkeypatch, device, pinned):
    seen = {}
    monkeypatch.setattr("lavis_lite.runners.evaluate.EvalData", lambda *_, **kw: seen.update(kw))
    config = evaluate_config(tmp_path)
    precision = Precision("fp32", torch.device("cpu"))
    context = EvaluationContext(torch.device(device), 0, precision, tmp_path)
    folder, model = RunFolder(tmp_path), TOYS.ToyModel()
    Evaluations(config.evaluate, [TOYS.ToyRows()], config.data, model, folder, context, 0.1)
    assert seen["pin_memory"] == pinned


def test_a_servers_format_is_written_and_a_figure_that_is_missing_says_why(tmp_path, monkeypatch):
    def evaluate(self, model, data, runner):
        answers = [{"question_id": 7, "answer": "two"}]
        return Evaluation({"bleu": 0.5}, [], answers, {"spice": "no java on the PATH"})

    monkeypatch.setattr(TOYS.ToyError, "evaluate", evaluate)
    found = run(evaluate_config(tmp_path))
    (record,) = records(tmp_path)
    assert record["spice"] == "n/a: no java on the PATH"
    assert found["metrics"] == {f"{record['evaluate']}/bleu": 0.5}
    file = tmp_path / "predictions" / f"{record['evaluate']}_submission.json"
    assert json.loads(file.read_text()) == [{"question_id": 7, "answer": "two"}]
