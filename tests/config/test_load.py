"""Loading: from a file to frozen dataclasses, without torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import config, registry
from lavis_lite.config.files import config_root
from lavis_lite.config.schema import EvaluateConfig, PipelineConfig, Stage, TrainConfig
from lavis_lite.errors import ConfigError
from lavis_lite.registry import cards
from lavis_lite.registry.component import Component, ModelComponent

TRAIN = """
runner: {name: train}
model: {name: blip_pretrain, type: tiny, losses: {itm: null}}
data: {train: [{name: scenes, split: web, weight: 1}, {name: scenes, split: human, weight: 0.5}]}
evaluate: [{name: retrieval, top_k: 4, data: {name: scenes, split: test}}]
run: {output_dir: out}
"""
Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str, **options: Any) -> Any:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return config.load(path, overrides, **options)

    return load


def report(load: Load, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load(text, *overrides)
    return str(error.value).splitlines()


def test_a_config_becomes_the_dataclass_of_its_runner(load: Load) -> None:
    loaded = load(TRAIN)
    assert isinstance(loaded, TrainConfig)
    written = {"losses": {"itm": None}}
    assert loaded.model == cards.whole(ModelComponent("blip_pretrain", written, "tiny"))
    assert loaded.model.written == written
    assert set(loaded.model.args["losses"]) == {"itc", "lm"}
    assert loaded.data.train[1].weight == 0.5
    assert loaded.evaluate[0].data == Component("scenes", {"split": "test"})
    assert loaded.optim.schedule == "cosine"
    evaluate = "runner: {name: evaluate}\nmodel: {name: m}\nevaluate: []\nrun: {output_dir: x}"
    with pytest.raises(ConfigError):
        load(evaluate)
    assert isinstance(load(evaluate.replace("name: m", "name: blip_caption")), EvaluateConfig)


def test_overrides_win_and_reach_into_lists(load: Load) -> None:
    loaded = load(TRAIN, "optim.lr=1e-4", "data.train[0].split=test", "model.type=base")
    assert loaded.optim.lr == 1e-4
    assert [d.args["split"] for d in loaded.data.train] == ["test", "human"]
    assert loaded.model.type == "base"


def test_overrides_win_over_values(load: Load) -> None:
    loaded = load(TRAIN, "run.seed=2", values={"run.seed": 1, "model.checkpoint": "some/folder"})
    assert loaded.run.seed == 2
    assert loaded.model.checkpoint == "some/folder"


def test_a_config_dataclass_becomes_yaml_that_loads_to_the_same(load: Load) -> None:
    loaded = load(TRAIN, "run.output_dir='007'", "model.prompt='a: b # c'")
    assert load(config.to_yaml(loaded)) == loaded
    plain = config.to_dict(loaded)
    assert plain["data"]["train"][0] == {"name": "scenes", "weight": 1.0, "split": "web"}
    assert plain["run"]["output_dir"] == "007"


SHIPPED = [path for path in sorted(config_root().rglob("*.yaml")) if path.parent.name != "base"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_the_shipped_configs_survive_the_round_trip(path: Path, load: Load) -> None:
    loaded = config.load(path)
    assert load(config.to_yaml(loaded)) == loaded


# ---- errors of stage 1


@pytest.mark.fault(42)
def test_all_problems_are_in_one_report_with_file_and_key_path(load: Load, tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optim: {lrr: 1, schedule: cosin}\nrunner: {name: train}")
    text = (
        "_base_: base.yaml\n"
        "model: {name: blip_pretrai}\n"
        "data: {train: [{name: scnes, weight: heavy}], batch_size: 0}\n"
        "run: {max_steps: 1.5}\nevalute: []\n"
    )
    lines = [x for x in report(load, text, "optim.lr=fast") if not x.startswith("  known: ")]
    run, base = tmp_path / "run.yaml", tmp_path / "base.yaml"
    assert lines == [
        f"{run}: evalute: unknown key. Did you mean 'evaluate'? "
        "Known: runner, model, data, run, optim, evaluate, plugins",
        f"{run}: model.name: no model named 'blip_pretrai'. Did you mean 'blip_pretrain'?",
        f"{run}: data.train[0].weight: float is expected, not str 'heavy'",
        f"{run}: data.train[0].name: no dataset named 'scnes'. Did you mean 'scenes'?",
        f"{run}: data.batch_size: at least 1, not 0",
        f"{run}: run.output_dir: missing. Folder of everything the run writes; "
        "the same folder resumes it.",
        f"{run}: run.max_steps: int is expected, not float 1.5",
        f"{base}: optim.lrr: unknown key. Did you mean 'lr'? Known: lr, min_lr, weight_decay, "
        "betas, eps, warmup_steps, warmup_lr, schedule, decay_rate, decay_steps, clip_norm, "
        "accumulate, layer_decay, freeze, lora, ema_decay",
        "on the command line: optim.lr: float is expected, not str 'fast'",
        f"{base}: optim.schedule: 'cosin' is not one of its values. Did you mean 'cosine'? "
        "Values: cosine, step, constant",
    ]


@pytest.mark.parametrize("text", ["", "model: {name: blip_caption}", "runner: train", "runner: {}"])
def test_a_config_says_which_runner(text: str, load: Load, tmp_path: Path) -> None:
    assert report(load, text) == [
        f"{tmp_path / 'run.yaml'}: runner: say which runner: `runner: {{name: train}}`. "
        f"Known: {', '.join(registry.names('runner'))}"
    ]


def test_an_unknown_runner_names_the_nearest(load: Load, tmp_path: Path) -> None:
    assert report(load, "runner: {name: trian}")[0] == (
        f"{tmp_path / 'run.yaml'}: runner.name: no runner named 'trian'. Did you mean 'train'?"
    )


def test_a_runner_without_a_config_dataclass_is_an_error(load: Load, tmp_path: Path) -> None:
    registry.register("runner", "formless")(dict)
    assert report(load, "runner: {name: formless}") == [
        f"{tmp_path / 'run.yaml'}: runner.name: runner 'formless' names no Config dataclass"
    ]


def test_a_runner_can_carry_its_config_dataclass(load: Load) -> None:
    @dataclasses.dataclass(frozen=True)
    class Config:
        runner: Component
        size: int = 3

    @registry.register("runner", "runner_of_a_user")
    class Runner:
        pass

    Runner.Config = Config  # type: ignore[attr-defined]
    assert load("runner: {name: runner_of_a_user}\nsize: 4").size == 4


def test_an_override_past_the_end_of_a_list_says_where(load: Load) -> None:
    assert report(load, TRAIN, "data.train[2].split=test") == [
        "on the command line: data.train[2] is past the end of a list of 2"
    ]


# ---- interpolation


def test_keys_refer_to_each_other(load: Load) -> None:
    loaded = load(TRAIN.replace("output_dir: out", 'output_dir: "out/${model.name}-${model.type}"'))
    assert loaded.run.output_dir == "out/blip_pretrain-tiny"


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:TOKEN}",
        "x ${oc.env:TOKEN,default}",
        "${ oc.env:TOKEN}",
        "${oc.${kind}:TOKEN}",
        "${${model.name}:TOKEN}",
        "${oc.decode:'1'}",
        "$${oc.env:TOKEN}",
        "${model.${model.name}}",
    ],
)
def test_the_environment_is_not_read(
    text: str, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    (line,) = report(load, TRAIN.replace("output_dir: out", f'output_dir: "{text}"'))
    assert line == (
        f"{tmp_path / 'run.yaml'}: run.output_dir: {text!r} is not resolved: configs know "
        "${key.path} and ${stage:NAME}; pass any other value on the command line as key=value"
    )


@pytest.mark.fault(43)
def test_the_environment_is_not_read_by_overrides_or_in_two_steps(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    (line,) = report(load, TRAIN, "run.output_dir=${oc.env:TOKEN}")
    assert line.startswith("on the command line: run.output_dir: '${oc.env:TOKEN}' is not resolved")
    text = TRAIN.replace("out}", '"${model.prompt}{oc.env:TOKEN}"}').replace(
        "type: tiny", 'type: tiny, prompt: "$"'
    )
    loaded = load(text)
    assert loaded.run.output_dir == "${oc.env:TOKEN}"
    with pytest.raises(ConfigError, match="is not resolved"):
        load(config.to_yaml(loaded))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${model.nme}", "Interpolation key 'model.nme' not found"),
        ("${run.output_dir}", "Recursive interpolation detected"),
        ("${stage:pretrain}", "no stage 'pretrain'. Stages: none"),
    ],
)
def test_a_reference_to_nothing_names_its_key(
    text: str, why: str, load: Load, tmp_path: Path
) -> None:
    assert report(load, TRAIN.replace("output_dir: out", f'output_dir: "{text}"')) == [
        f"{tmp_path / 'run.yaml'}: run.output_dir: {why}"
    ]


PIPELINE = """
runner: {name: pipeline}
stages:
  pretrain: {cfg: train.yaml}
  tune: {cfg: blip/caption_scenes, set: {model.checkpoint: "${stage:pretrain}"}}
run: {output_dir: output/all}
"""


def test_a_stage_refers_to_the_folder_of_another(load: Load) -> None:
    loaded = load(PIPELINE)
    assert isinstance(loaded, PipelineConfig)
    assert loaded.stages["tune"].set == {"model.checkpoint": "output/all/pretrain"}


def test_an_unknown_stage_names_the_nearest(load: Load, tmp_path: Path) -> None:
    assert report(load, PIPELINE.replace("stage:pretrain", "stage:pretain")) == [
        f"{tmp_path / 'run.yaml'}: stages.tune.set.model.checkpoint: no stage 'pretain'. "
        "Did you mean 'pretrain'? Stages: pretrain, tune"
    ]


def test_the_config_of_a_stage_is_found_beside_the_pipeline(load: Load, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN)
    loaded = load(PIPELINE)
    assert loaded.stages["pretrain"] == Stage(str(tmp_path / "train.yaml"))
    assert loaded.stages["tune"].cfg == "blip/caption_scenes"


# ---- plug-ins

PLUGIN = """
from lavis_lite import registry
@registry.register("vision_encoder", "net_of_{n}")
class Net:
    pass
"""


def test_a_plug_in_beside_the_config_is_loaded_before_names_are_checked(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / "my_net.py").write_text(PLUGIN.format(n="mine"))
    text = TRAIN + "plugins: [my_net.py]\n"
    loaded = load(text, "model.vision={name: net_of_mine}")
    assert loaded.plugins == [str(tmp_path / "my_net.py")]
    assert load(config.to_yaml(loaded)) == loaded


def test_a_plug_in_on_the_command_line_is_found_where_one_stands(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "their_net.py").write_text(PLUGIN.format(n="theirs"))
    monkeypatch.chdir(here)
    loaded = load(TRAIN, "plugins=[their_net.py]", "model.vision={name: net_of_theirs}")
    assert loaded.plugins == [str(here / "their_net.py")]


def test_plug_ins_that_fail_are_reported_with_everything_else(load: Load, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    lines = report(load, TRAIN + "plugins: [absent_module, bad.py, 3]\noptimm: {}\n")
    run = tmp_path / "run.yaml"
    assert sorted(lines) == [
        f"{run}: optimm: unknown key. Did you mean 'optim'? "
        "Known: runner, model, data, run, optim, evaluate, plugins",
        f"{run}: plugins[0]: plugin 'absent_module' fails: ModuleNotFoundError: "
        "No module named 'absent_module'",
        f"{run}: plugins[1]: plugin '{tmp_path / 'bad.py'}' fails: ZeroDivisionError: "
        "division by zero",
        f"{run}: plugins[2]: str is expected, not int 3",
    ]


def test_plug_ins_are_a_list(load: Load, tmp_path: Path) -> None:
    assert report(load, TRAIN + "plugins: my_net.py\n") == [
        f"{tmp_path / 'run.yaml'}: plugins: a list is expected, not str 'my_net.py'"
    ]


# ---- what loading costs


def test_loading_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(TRAIN)
    code = (
        "import sys; from lavis_lite import config\n"
        f"config.load({str(tmp_path / 'run.yaml')!r})\n"
        "try: config.load('blip/pretrain_scenes', ['model.name=x', 'optim.lrr=1'])\n"
        "except ValueError as error: print(len(str(error).splitlines()))\n"
        "print([m for m in ('torch', 'timm', 'transformers', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert int(done.stdout.splitlines()[0]) >= 2
    assert done.stdout.splitlines()[1] == "[]"
