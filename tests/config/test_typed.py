"""What is typed on a command line: texts as they are, slips with the nearest name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lavis_lite import config
from lavis_lite.cli import main
from lavis_lite.config.files import find
from lavis_lite.errors import ConfigError

CAPFILT = """
runner: {name: capfilt}
data: {source: {name: folder, path: x}}
filter: {name: blip_image_text_matching, type: scenes}
run: {output_dir: out}
"""


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "c.yaml").write_text(text)
    return str(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "text",
    ["a #1", "2024", "10_1", "[x]", "#1", "*star", "b: c", "1e5", "true", "&x", "@y", "0x1F"],
)
@pytest.mark.parametrize("key", ["data.source.path", "run.output_dir"])
def test_a_key_that_takes_a_text_takes_it_as_typed(tmp_path: Path, text: str, key: str) -> None:
    loaded = config.load_and_bind(written(tmp_path, CAPFILT), [f"{key}={text}"])
    found = {
        "data.source.path": loaded.data.source.args["path"],
        "run.output_dir": loaded.run.output_dir,
    }
    assert found[key] == text


def test_quotes_are_yamls_and_other_keys_have_their_types(tmp_path: Path) -> None:
    overrides = ["data.source.path='a #1'", "filter.threshold=0.7", "data.right=[a, b]"]
    loaded = config.load_and_bind(written(tmp_path, CAPFILT), overrides)
    assert loaded.data.source.args["path"] == "a #1"
    assert loaded.filter.threshold == 0.7
    assert loaded.data.right == ["a", "b"]


def test_a_text_that_yaml_takes_for_a_list_says_how_it_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"put in quotes of its own: \"data.source.path='...'\""):
        config.load(written(tmp_path, CAPFILT), ["data.source.path=[x"])


def test_a_misspelt_key_beside_a_models_arguments_gets_its_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"filter.threshhold: .*Did you mean 'threshold'"):
        config.load_and_bind(written(tmp_path, CAPFILT), ["filter.threshhold=0.7"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["filter.threshold=70"], r"70; scores of `itm` are from 0 to 1; for 70 % write 0.7"),
        (["filter.threshold=-0.1"], r"-0.1; scores of `itm` are from 0 to 1"),
        (["filter.score=itc", "filter.threshold=-2"], r"-2; scores of `itc` are from -1 to 1"),
    ],
)
def test_a_threshold_outside_of_the_scores_is_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    from lavis_lite import registry

    loaded = config.load_and_bind(written(tmp_path, CAPFILT), overrides)
    with pytest.raises(ConfigError, match=message):
        registry.build("runner", loaded.runner.spec, config=loaded)


def test_a_misspelt_source_is_noticed_before_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavis_lite import runners
    from lavis_lite.models import zoo

    def asked(*args: Any, **options: Any) -> Any:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(zoo, "build_model", asked)
    where = [f"data.source.path={tmp_path / 'nowhere'}", f"run.output_dir={tmp_path / 'out'}"]
    with pytest.raises(Exception, match="nowhere"):
        runners.run(config.load_and_bind(written(tmp_path, CAPFILT), where))


LAVIS = """
model: {arch: blip_caption, model_type: base_coco, load_finetuned: false}
datasets: {coco_caption: {vis_processor: {train: {name: blip_image_train}}}}
run: {task: captioning, batch_size_train: 32, evaluate: false}
"""


def test_a_config_of_lavis_is_told_and_what_to_write_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--cfg", written(tmp_path, LAVIS)], program="run.py") == 2
    said = capsys.readouterr().err
    assert "this is a config of LAVIS (model.arch, run.task, datasets)" in said
    assert "runner: {name: train}" in said
    assert "model: {name: blip_caption, type: base_coco}" in said
    assert "{name: coco_caption, split: train}" in said
    assert "batch_size: 32" in said
    assert "lavis-lite list configs" in said


def test_a_config_of_ours_with_a_datasets_key_is_ours(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="datasets: unknown key"):
        config.load(written(tmp_path, f"{CAPFILT}datasets: {{a: b}}\n"))


def test_the_configs_that_ship_are_listed_by_the_names_that_run_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "configs"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"quickstart", "blip/caption_coco"} <= set(names)
    assert main(["list", "configs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"configs": names}
    for name in names[:3]:
        assert find(name).is_file()


def test_torchrun_finds_our_error_where_it_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert main(["run", "--cfg", "quickstart", "run.outputdir=x"]) == 2
    left = json.loads((tmp_path / "error.json").read_text())
    shown = left["message"]["extraInfo"]
    assert left["message"]["message"] == shown["py_callstack"]
    assert shown["py_callstack"].startswith("ConfigError: ")
    assert "Did you mean 'output_dir'" in shown["py_callstack"]
    assert int(shown["timestamp"]) > 0
