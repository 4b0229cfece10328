"""Sweeps: arms and seeds expanded to runs, shared, resumed, summed up, refused."""

from __future__ import annotations

import csv
import json
import statistics

import pytest
from omegaconf import OmegaConf
from toy_runs import TOY, run, run_in_process, toy_config, toy_evaluator

from lavis_lite.config import load_and_bind, to_dict
from lavis_lite.errors import ConfigError
from lavis_lite.runners.sweep.plan import Planner

SEEDS = [0, 1]
FROM_NOTHING = {"values.start": None}


def write_yaml(path, tree):
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    return str(path)


def loader(folder):
    """``build(**changes)`` loads a sweep in ``folder``: a pipeline pre -> tune, in three arms."""
    run_tree = to_dict(toy_config("nowhere", evaluate=[toy_evaluator()], run__max_steps=6))
    write_yaml(folder / "train.yaml", run_tree)
    pipeline = {
        "runner": {"name": "pipeline"},
        "values": {"seed": 0, "lr": 0.02, "start": "${stage:pre}"},
        "stages": {
            "pre": {"cfg": "train.yaml", "set": {"run.seed": "${values.seed}"}},
            "tune": {
                "cfg": "train.yaml",
                "set": {
                    "run.seed": "${values.seed}",
                    "optim.lr": "${values.lr}",
                    "model.checkpoint": "${values.start}",
                },
            },
        },
        "run": {"output_dir": "nowhere"},
    }
    write_yaml(folder / "pipeline.yaml", pipeline)

    def build(**changes):
        tree = {
            "runner": {"name": "sweep"},
            "plugins": [TOY],
            "cfg": "pipeline.yaml",
            "seeds": [0],
            "seed_key": "values.seed",
            "results": ["tune"],
            "arms": {
                "slow": {},
                "fast": {"about": "a high rate", "against": "slow", "set": {"values.lr": 0.1}},
                "fresh": {"set": {"values.start": None, "values.lr": 0.01}},
            },
            "measures": {"error": {"figures": ["tune/toy_error/error"], "better": -1}},
            "run": {"output_dir": str(folder / "out")},
            **changes,
        }
        return load_and_bind(write_yaml(folder / "sweep.yaml", tree))

    return build


@pytest.fixture
def sweep(tmp_path):
    """See ``loader``."""
    return loader(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of two seeds with charts that has been run: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    rate = {"measure": "error", "x": "rate", "lines": {"tuned": {"slow": 0.02, "fast": 0.1}}}
    gain = {**rate, "difference": True, "lines": {"tuned": {"fast": 0.1}}}
    charts = {"error by rate": rate, "what it gains": gain}
    return folder, run(loader(folder)(seeds=SEEDS, charts=charts))


def folders(tmp_path):
    return sorted(path.name.partition("-")[0] for path in (tmp_path / "out" / "runs").iterdir())


def times(tmp_path):
    files = (tmp_path / "out" / "runs").rglob("*")
    return {f: f.stat().st_mtime_ns for f in files if f.is_file() and f.name != ".lock"}


def error_of(tmp_path, folder):
    done = json.loads((tmp_path / "out" / "runs" / folder / "complete.json").read_text())
    return done["metrics"]["toy_error/error"]


def test_stages_that_arms_share_are_run_once(finished):
    folder, found = finished
    # Two of the three arms need what is pre-trained, once per seed.
    assert folders(folder) == ["pre"] * 2 + ["tune"] * 6
    assert (found["runs"], found["complete"]) == (8, 8)
    used = found["folders"]
    assert used["slow, seed 0"]["pre"] == used["fast, seed 0"]["pre"]
    assert used["slow, seed 0"]["pre"] != used["slow, seed 1"]["pre"]
    assert list(used["fresh, seed 0"]) == ["tune"]


def test_means_spreads_and_differences_are_those_of_the_seeds(finished):
    folder, found = finished
    values = {
        arm: [error_of(folder, found["folders"][f"{arm}, seed {s}"]["tune"]) for s in SEEDS]
        for arm in ("slow", "fast")
    }
    error = found["arms"]["fast"]["values"]["error"]
    assert error["seeds"] == dict(zip(["0", "1"], values["fast"], strict=True))
    assert error["mean"] == pytest.approx(statistics.fmean(values["fast"]))
    assert error["spread"] == pytest.approx(statistics.stdev(values["fast"]))
    change = found["arms"]["fast"]["differences"]["error"]
    each = [b - a for a, b in zip(values["slow"], values["fast"], strict=True)]
    assert list(change["seeds"].values()) == pytest.approx(each)
    assert change["spread"] == pytest.approx(statistics.stdev(each))
    assert "differences" not in found["arms"]["slow"]


def test_the_table_is_written_as_json_csv_and_a_page(finished):
    folder, found = finished
    out = folder / "out"
    assert json.loads((out / "complete.json").read_text()) == found
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["slow", "fast", "fresh"]
    assert float(rows[0]["seed 1"]) == pytest.approx(
        found["arms"]["slow"]["values"]["error"]["seeds"]["1"], rel=1e-5
    )
    page = (out / "report.html").read_text()
    for text in ("a high rate", "fast − slow", "error by rate", "what it gains", "8 of 8 runs"):
        assert text in page
    spread = found["arms"]["slow"]["values"]["error"]["spread"]
    assert f"± {spread:.1f}" in page
    seeds = {len(arm["values"]["error"]["seeds"]) for arm in found["arms"].values()}
    assert f"{max(seeds)} seeds." in page


def test_started_again_it_runs_nothing_that_is_there(tmp_path, sweep):
    first = run(sweep())
    before = times(tmp_path)
    again = run(sweep())
    assert again["arms"] == first["arms"]
    assert times(tmp_path) == before


def test_a_new_arm_runs_only_what_it_adds(tmp_path, sweep):
    run(sweep())
    before = times(tmp_path)
    # With the settings of `pre` another stage is the same run.
    arms = {"slower": {"set": {"values.lr": 0.001}}, "slow": {}, "pre": {"set": FROM_NOTHING}}
    found = run(sweep(arms=arms))
    assert list(found["arms"]) == ["slower", "slow", "pre"]
    assert before.items() <= times(tmp_path).items()
    assert folders(tmp_path) == ["pre", "tune", "tune", "tune", "tune"]
    assert found["folders"]["pre, seed 0"]["tune"] == found["folders"]["slow, seed 0"]["pre"]


def test_a_killed_sweep_resumes_in_the_run_that_it_was_in(tmp_path, sweep):
    expected = run(sweep(run={"output_dir": str(tmp_path / "straight"), "report": None}))
    run_in_process(sweep(), "kill:5")
    found = run(sweep())
    assert found["arms"] == expected["arms"]
    assert (found["runs"], found["complete"]) == (4, 4)


def test_processes_beside_each_other_find_the_same(tmp_path, sweep, finished):
    found = run(sweep(runner={"name": "sweep", "workers": 2}, seeds=SEEDS))
    assert found["arms"] == finished[1]["arms"]
    assert folders(tmp_path) == folders(finished[0])


def test_a_run_that_fails_stops_only_what_builds_on_it(tmp_path, sweep, monkeypatch):
    monkeypatch.setenv("TOY_FAULT", "raise:3")
    short = {**FROM_NOTHING, "stages.tune.set": {"run.max_steps": 2, "model.checkpoint": None}}
    with pytest.raises(ConfigError, match="2 of 3 runs did not finish") as caught:
        run(sweep(arms={"slow": {}, "short": {"set": short}}))
    message = str(caught.value)
    assert "ValueError: the toy breaks" in message
    assert "needs pre-" in message
    table = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert table["arms"]["slow"]["values"]["error"]["mean"] is None
    assert len(table["arms"]["short"]["values"]["error"]["seeds"]) == 1
    assert not (tmp_path / "out" / "complete.json").exists()


def test_a_single_run_is_swept_too(tmp_path, sweep):
    found = run(
        sweep(
            cfg="train.yaml",
            seeds=SEEDS,
            seed_key="run.seed",
            results=[],
            arms={"as it is": {}, "longer": {"set": {"run.max_steps": 8}, "seeds": [1]}},
            measures={"error": {"figures": ["toy_error/error"], "scale": 100}},
        )
    )
    assert list(found["arms"]["longer"]["values"]["error"]["seeds"]) == ["1"]
    assert found["arms"]["longer"]["values"]["error"]["spread"] is None
    assert folders(tmp_path) == ["run"] * 3
    folder = found["folders"]["as it is, seed 0"]["run"]
    value = found["arms"]["as it is"]["values"]["error"]["seeds"]["0"]
    assert value == pytest.approx(100 * error_of(tmp_path, folder))


def test_a_stage_named_in_also_runs_where_its_input_does(sweep):
    plan = Planner(sweep(results=["pre"], also=["tune"], arms={"slow": {}})).plan()
    assert [list(stages) for stages in plan.cells.values()] == [["pre", "tune"]]
    plan = Planner(sweep(results=["pre"], arms={"slow": {}})).plan()
    assert [list(stages) for stages in plan.cells.values()] == [["pre"]]


def test_another_evaluation_is_another_run(sweep):
    def idents(**changes):
        config = sweep(arms={"slow": {"set": changes}}, seeds=[0])
        return Planner(config).plan().cells["slow", 0]

    plain = idents()
    changed = idents(**{"stages.tune.set.evaluate[0].data.size": 5})
    assert changed["pre"] == plain["pre"]
    assert changed["tune"] != plain["tune"]
    assert idents(**{"stages.pre.set.run.log_every": 2}) == plain


BAD = {
    "unknown key of an arm": ({"arms": {"slow": {"sett": {}}}}, "arms.slow.sett: unknown key. Did"),
    "no seeds": ({"seeds": []}, "seeds: name at least one"),
    "a seed twice": ({"seeds": [1, 0, 1]}, "seeds: [1] more than once"),
    "no arms": ({"arms": {}}, "arms: name at least one"),
    "an axis without choices": ({"grid": {"rate": {}}}, "grid.rate: name at least one choice"),
    "two axes that vary the same": (
        {"grid": {"rate": {"a": {"values.lr": 1}}, "speed": {"b": {"values.lr": 2}}}},
        "grid.speed: values.lr is already varied by 'rate'",
    ),
    "an arm of a name that the grid makes": (
        {"grid": {"rate": {"slow": {"values.lr": 1}}}},
        "arms.slow: the grid makes an arm of this name",
    ),
    "the same arm twice": (
        {"arms": {"slow": {}, "idle": {"set": {"values.lr": 0.02}}}},
        "arms.idle: the same runs as arm 'slow'",
    ),
    "a value that nothing reads": (
        {"arms": {"slow": {"set": {"values.lrr": 1}}}},
        "arms.slow.set: pipeline.yaml has no value 'lrr'. Did you mean 'lr'?",
    ),
    "a seed for nothing": ({"seed_key": "values.sed"}, "seed_key: pipeline.yaml has no value"),
    "a wrong key in a stage": (
        {"arms": {"slow": {"set": {"stages.tune.set.optim.lrr": 1}}}},
        "arms.slow: stages.tune: in `set`: optim.lrr: unknown key. Did you mean 'lr'?",
    ),
    "a reference to no stage": (
        {"arms": {"slow": {"set": {"values.start": "${stage:pra}"}}}},
        "arms.slow: in `set`: values.start: no stage 'pra'. Did you mean 'pre'?",
    ),
    "an unknown result": ({"results": ["tun"]}, "results: no stage 'tun'. Did you mean 'tune'?"),
    "a figure of no stage": (
        {"measures": {"error": {"figures": ["tne/toy_error/error"]}}},
        "measures.error: no stage 'tne'. Did you mean 'tune'?",
    ),
    "compared with nothing": (
        {"arms": {"slow": {"against": "slw"}}},
        "arms.slow.against: no arm 'slw'. Did you mean 'slow'?",
    ),
    "seeds of its own": (
        {"arms": {"slow": {"seeds": [7]}}},
        "arms.slow.seeds: [7] are none of seeds: [0]",
    ),
    "a stage that comes later": (
        {"arms": {"slow": {"set": {"stages.pre.set.model.checkpoint": "${stage:tune}"}}}},
        "arms.slow: stages.pre: builds on 'tune', which comes later",
    ),
    "a seed in an arm": (
        {"arms": {"slow": {"set": {"values.seed": 3}}}},
        "arms.slow.set: values.seed is already set by `seeds`",
    ),
    "no workers": ({"runner": {"name": "sweep", "workers": 0}}, "runner.workers: 0; at least 1"),
    "a chart of nothing": (
        {"charts": {"c": {"measure": "eror", "x": "rate", "lines": {"l": {"slw": 1}}}}},
        "charts.c.measure: no 'eror'. Did you mean 'error'?",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_wrong_sweep_is_refused_before_anything_is_run(tmp_path, sweep, changes, message):
    with pytest.raises(ConfigError) as caught:
        run(sweep(**changes))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_problems_of_all_arms_are_reported_once(sweep):
    arms = {n: {"set": {f"stages.tune.set.optim.{n}": 1}} for n in ("lrr", "beta")}
    with pytest.raises(ConfigError) as caught:
        run(sweep(arms=arms, seeds=SEEDS))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["arms.lrr", "arms.beta"]


def test_a_grid_runs_every_combination_of_its_choices(sweep):
    grid = {
        "start": {"tuned": {}, "fresh": FROM_NOTHING},
        "rate": {"low": {"values.lr": 0.01}, "high": {"values.lr": 0.1}},
    }
    found = run(sweep(arms={"plain": {}}, grid=grid))["arms"]
    assert list(found) == ["plain", "tuned, low", "tuned, high", "fresh, low", "fresh, high"]
    by_hand = run(sweep(arms={"arm": {"set": {**FROM_NOTHING, "values.lr": 0.1}}}))["arms"]["arm"]
    assert found["fresh, high"]["values"] == by_hand["values"]
    assert len({str(arm["values"]) for arm in found.values()}) == 5


def test_the_page_of_a_grid_has_an_axis_down_and_one_across(tmp_path, sweep):
    grid = {"start": {"tuned": {}, "fresh": FROM_NOTHING}, "rate": {"a": {}, "b": {"values.lr": 1}}}
    run(sweep(arms={}, grid=grid))
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<th scope="col">a</th><th scope="col">b</th>' in page
    assert '<th scope="row">tuned</th>' in page


def test_a_problem_that_arms_of_a_grid_share_is_reported_once(sweep):
    grid = {
        "seen": {"a": {"values.start": None}, "b": {}},
        "rate": {"wrong": {"stages.tune.set.optim.lrr": 1}, "right": {}},
    }
    with pytest.raises(ConfigError) as caught:
        run(sweep(arms={}, grid=grid))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("arms.a, wrong: stages.tune: in `set`: optim.lrr: unknown key")
    assert line.endswith("(and 1 more arms)")


def test_a_figure_that_only_some_arms_have_is_a_dash(sweep, caplog):
    grid = {"kind": {"with": {}, "without": {"stages.tune.set.evaluate": []}}}
    found = run(sweep(arms={}, grid=grid))
    assert found["arms"]["with"]["values"]["error"]["mean"] is not None
    assert found["arms"]["without"]["values"]["error"]["mean"] is None
    assert "no figure" not in caplog.text


def test_a_figure_that_is_not_there_is_named_and_left_out(sweep, caplog):
    measures = {"error": {"figures": ["tune/toy_error/eror"]}}
    found = run(sweep(measures=measures, arms={"fresh": {"set": FROM_NOTHING}}))
    assert found["arms"]["fresh"]["values"]["error"]["mean"] is None
    assert "no figure 'toy_error/eror'. Did you mean 'toy_error/error'?" in caplog.text
