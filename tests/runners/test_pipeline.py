"""Pipelines: stages in order, skipped, resumed, refused."""

from __future__ import annotations

import json
import shutil

import pytest
from omegaconf import OmegaConf
from toy_runs import records, run, run_in_process, toy_config, toy_evaluator

from lavis_lite.config import load, to_dict
from lavis_lite.errors import ConfigError
from lavis_lite.runners.settings import fingerprint


def write_yaml(path, tree):
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    return str(path)


@pytest.fixture
def pipeline(tmp_path):
    """``pipeline(**stage overrides)`` loads: pretrain, then tune from it, then apart."""
    train = write_yaml(tmp_path / "train.yaml", to_dict(toy_config("nowhere")))
    measured = to_dict(toy_config("nowhere", evaluate=[toy_evaluator()]))
    tuned = write_yaml(tmp_path / "tune.yaml", measured)

    def build(pretrain=None, tune=None, apart=None, **settings):
        tree = {
            "runner": {"name": "pipeline"},
            "stages": {
                "pretrain": {"cfg": train, "set": pretrain or {}},
                "tune": {
                    "cfg": tuned,
                    "set": {"model.checkpoint": "${stage:pretrain}", **(tune or {})},
                },
                "apart": {"cfg": train, "set": {"run.seed": 7, **(apart or {})}},
            },
            "run": {"output_dir": str(tmp_path / "out"), **settings},
        }
        return load(write_yaml(tmp_path / "pipeline.yaml", tree))

    return build


def steps_of(folder):
    return [r["step"] for r in records(folder) if "loss" in r]


def times(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_stages_run_in_order_each_in_its_own_folder(tmp_path, pipeline, caplog):
    with caplog.at_level("INFO"):
        found = run(pipeline())
    assert list(found["stages"]) == ["pretrain", "tune", "apart"]
    assert found["report"] is None
    assert found["stages"]["tune"]["metrics"].keys() == {"toy_error/error"}
    for stage in found["stages"]:
        assert steps_of(tmp_path / "out" / stage) == list(range(1, 13))
    # What it learnt before is where it begins: far below where the others begin.
    first = {s: records(tmp_path / "out" / s)[0]["loss"] for s in found["stages"]}
    assert first["tune"] < 0.7 * first["pretrain"]
    assert f"[2/3] tune: begins, as in {tmp_path / 'tune.yaml'}" in caplog.text
    assert "all 3 stages are complete" in caplog.text


def test_complete_stages_are_skipped_and_said_to_be(tmp_path, pipeline, caplog):
    first = run(pipeline())
    before = times(tmp_path / "out")
    with caplog.at_level("INFO"):
        again = run(pipeline(pretrain={"run.log_every": 3}))
    assert again["stages"] == first["stages"]
    assert times(tmp_path / "out") == before
    assert "[1/3] pretrain: complete, skipped; its results are in" in caplog.text


def test_a_killed_pipeline_resumes_in_the_stage_that_it_was_in(tmp_path, pipeline, caplog):
    out = tmp_path / "out"
    run(pipeline())
    shutil.rmtree(out / "apart")
    expected = times(out)
    run_in_process(pipeline(), "kill:6")  # in the only stage that is left
    assert steps_of(out / "apart") == list(range(1, 7))
    with caplog.at_level("INFO"):
        run(pipeline())
    assert "[3/3] apart: continues" in caplog.text
    assert "continues after step 4 of 12" in caplog.text
    assert steps_of(out / "apart") == list(range(1, 13))
    unchanged = {p: t for p, t in expected.items() if p.name != "pipeline.json"}
    assert unchanged.items() <= times(out).items()


def test_a_changed_stage_and_what_builds_on_it_are_refused_and_named(tmp_path, pipeline):
    run(pipeline())
    before = times(tmp_path / "out")
    with pytest.raises(ConfigError) as caught:
        run(pipeline(pretrain={"optim.lr": 0.5}))
    message = str(caught.value)
    assert "stage 'pretrain':\n    optim.lr: 0.02 is now 0.5" in message
    assert "stage 'tune':\n    it builds on stage 'pretrain', which has changed" in message
    assert "'apart'" not in message
    out = tmp_path / "out"
    assert f"Delete {out / 'pretrain'} and {out / 'tune'} to run them anew" in message
    assert times(tmp_path / "out") == before


def test_the_advice_of_the_refusal_works(tmp_path, pipeline):
    run(pipeline())
    old = records(tmp_path / "out" / "tune")
    shutil.rmtree(tmp_path / "out" / "pretrain")
    shutil.rmtree(tmp_path / "out" / "tune")
    run(pipeline(pretrain={"optim.lr": 0.5}))
    assert records(tmp_path / "out" / "tune") != old


@pytest.mark.fault(11)
def test_what_an_earlier_release_has_done_is_not_done_again(tmp_path, pipeline, caplog):
    out = tmp_path / "out"
    run(pipeline())
    forget_an_option(out, "optim.ema_decay")
    before = times(out)
    with caplog.at_level("INFO"):
        run(pipeline())
    assert caplog.text.count("complete, skipped") == 3
    assert times(out) == before
    shutil.rmtree(out / "pretrain")
    with pytest.raises(ConfigError, match="builds on stage 'pretrain', which has changed"):
        run(pipeline(pretrain={"optim.ema_decay": 0.9}))


def forget_an_option(out, key):
    """Leave what a release would have left that did not have the option."""
    history = json.loads((out / "pipeline.json").read_text())
    for name, stage in history.items():
        del stage["settings"][key]
        for source in stage["inputs"]:
            stage["inputs"][source] = fingerprint(history[source]["settings"])
        start = json.loads((out / name / "run.json").read_text())
        del start["settings"][key]
        (out / name / "run.json").write_text(json.dumps(start))
    (out / "pipeline.json").write_text(json.dumps(history))


def test_a_stage_that_only_measures_more_measures_without_training(tmp_path, pipeline):
    run(pipeline())
    found = run(pipeline(tune={"evaluate[0].data.size": 9}))
    assert steps_of(tmp_path / "out" / "tune") == list(range(1, 13))
    assert found["stages"]["tune"]["metrics"].keys() == {"toy_error/error"}
    rows = (tmp_path / "out/tune/predictions/toy_error.jsonl").read_text().splitlines()
    assert len(rows) == 9


def test_problems_of_all_stages_are_reported_before_any_runs(tmp_path, pipeline):
    broken = pipeline(
        pretrain={"optim.lrr": 1}, tune={"model.widht": 2}, apart={"optim.schedule": "step"}
    )
    with pytest.raises(ConfigError) as caught:
        run(broken)
    message = str(caught.value)
    assert "stages.pretrain: " in message
    assert "optim.lrr" in message
    assert "Did you mean 'width'?" in message
    assert "stages.apart: optim.decay_steps" in message
    assert not (tmp_path / "out").exists()


def test_a_stage_config_is_looked_up_beside_the_pipelines(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    write_yaml(tmp_path / "mine" / "train.yaml", to_dict(toy_config("nowhere")))
    tree = {
        "runner": {"name": "pipeline"},
        "stages": {"only": {"cfg": "train.yaml", "set": {"run.max_steps": 2}}},
        "run": {"output_dir": str(tmp_path / "out")},
    }
    write_yaml(tmp_path / "mine" / "pipeline.yaml", tree)
    monkeypatch.chdir(tmp_path)
    run(load("mine/pipeline.yaml"))
    assert steps_of(tmp_path / "out" / "only") == [1, 2]


def test_a_pipeline_without_stages_is_refused(tmp_path):
    tree = {"runner": {"name": "pipeline"}, "stages": {}, "run": {"output_dir": "nowhere"}}
    with pytest.raises(ConfigError, match="stages: name at least one"):
        run(load(write_yaml(tmp_path / "empty.yaml", tree)))


def test_comparisons_of_what_is_no_pair_of_stages_are_refused(pipeline):
    config = pipeline(compare=[["pretrain", "tun"], ["apart"]])
    with pytest.raises(ConfigError) as caught:
        run(config)
    assert str(caught.value).splitlines() == [
        "run.compare[0]: no stage is called 'tun'. Did you mean 'tune'?",
        "run.compare[1]: ['apart'] has 1 stages; name two, [before, after]",
    ]


def test_the_report_shows_all_stages(tmp_path, pipeline):
    found = run(pipeline(report="page.html", title="A toy"))
    assert found["report"] == str(tmp_path / "out" / "page.html")
    page = (tmp_path / "out" / "page.html").read_text()
    assert "A toy" in page
    assert all(stage in page for stage in ("pretrain", "tune", "apart"))
    history = json.loads((tmp_path / "out" / "pipeline.json").read_text())
    assert list(history) == ["pretrain", "tune", "apart"]


def test_an_output_folder_that_cannot_be_made_is_a_wrong_key(tmp_path, pipeline):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"^run\.output_dir: .*/out cannot be written: "):
        run(pipeline(output_dir=str(tmp_path / "file" / "out")))
