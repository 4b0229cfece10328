"""The command line: what it prints, its exit codes, and never a traceback for a user's error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import lavis_lite
from lavis_lite import cli, registry, runners
from lavis_lite.errors import CheckpointError, ConfigError, DataError, DownloadError, UnknownName
from lavis_lite.registry.weight_cards import weight_cards

ROOT = Path(__file__).resolve().parents[2]
TRAIN = """
runner: {name: train}
model: {name: blip_pretrain, type: tiny}
data: {train: [{name: scenes}]}
run: {output_dir: never_written}
"""


class Output:
    """What a command left: exit code, lines of stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.lines = out.splitlines()


Command = Callable[..., Output]


@pytest.fixture
def lavis_lite_(capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*words: str, program: str = "lavis-lite") -> Output:
        try:
            code = cli.main(list(words), program)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Output(code, out, err)

    return command


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(TRAIN)
    return str(tmp_path / "run.yaml")


# ---- list


def test_list_shows_every_kind_and_the_types_of_models(lavis_lite_: Command) -> None:
    output = lavis_lite_("list")
    assert output.code == 0
    kinds = [line.removesuffix(":") for line in output.lines if not line.startswith(" ")]
    assert kinds == list(registry.kinds())
    assert "  blip_retrieval  (coco, flickr, tiny, scenes)" in output.lines
    assert "  timm/*" in output.lines


def test_a_pattern_lists_models_alone(lavis_lite_: Command) -> None:
    assert lavis_lite_("list", "blip_cap*").lines == [
        "blip_caption  (base_coco, large_coco, tiny, scenes)"
    ]


def test_a_pattern_that_fits_no_model_lists_what_it_fits(lavis_lite_: Command) -> None:
    assert lavis_lite_("list", "it?").lines == [
        *("loss:", "  itc", "  itm", "metric:", "  itm", "scorer:", "  itc", "  itm")
    ]
    assert lavis_lite_("list", "timm/resnet18").lines == ["timm/resnet18"]


def test_a_pattern_that_fits_nothing_says_so(lavis_lite_: Command) -> None:
    output = lavis_lite_("list", "zzz*")
    assert (output.code, output.out, output.err) == (0, "", "nothing matches 'zzz*'\n")


def test_a_kind_in_the_place_of_a_pattern_says_how_to_choose_it(lavis_lite_: Command) -> None:
    output = lavis_lite_("list", "metrics")
    assert output.err == (
        "nothing matches 'metrics'; `lavis-lite list --kind metric` lists its names\n"
    )


def test_an_override_written_like_an_option_says_how_to_write_it(lavis_lite_: Command) -> None:
    output = lavis_lite_("run", "--cfg", "quickstart", "--run.seed=3")
    assert output.code == 2
    assert "unrecognized arguments: --run.seed=3; an override has no dashes: run.seed=3" in (
        output.err
    )
    assert "dashes" not in lavis_lite_("env", "--run.seed=3").err


def test_a_kind_can_be_chosen(lavis_lite_: Command) -> None:
    assert lavis_lite_("list", "--kind", "processor", "blip_*").lines == [
        "blip_caption",
        "blip_image_eval",
        "blip_image_train",
        "blip_question",
    ]
    output = lavis_lite_("list", "--kind", "los")
    assert output.code == 2
    assert "invalid choice: 'los'" in output.err


def test_json_is_for_programs(lavis_lite_: Command) -> None:
    listing = json.loads(lavis_lite_("list", "--json").out)
    assert list(listing) == list(registry.kinds())
    assert listing["model"]["blip_caption"][0] == "base_coco"
    assert listing["loss"]["itc"] == []


def test_a_plug_in_that_cannot_be_used_is_named(
    lavis_lite_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.index, "failures", {"acme": "ImportError: no"})
    assert lavis_lite_("list", "blip*").err == "cannot be used: acme (ImportError: no)\n"


# ---- info


def test_info_of_a_kind_is_its_contract(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "loss")
    assert output.lines[0].startswith("loss: An nn.Module called with a step's Shared view")
    assert "``requires`` names the capabilities" in output.out


def test_info_of_a_name_says_where_it_is_and_what_it_takes(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "itc", "--kind", "loss")
    assert output.lines[0].startswith("itc (loss), defined at ")
    assert "contrastive.py:" in output.lines[0]
    assert output.lines[-1] == (
        "arguments: queue_size=57600, alpha=0.4, ramp=0.1, negatives='global', "
        "same_image_positive=False"
    )


def test_info_of_a_dataset_explains_the_arguments_of_all(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "scenes")
    assert "noise=None, level='easy', limit=None, where=None, fold=None, slice=None" in output.out
    assert "arguments of several datasets:\n  limit: at most so many rows" in output.out
    assert all(
        len(line) <= 100 for line in output.out.partition("several datasets:")[2].split("\n")
    )


def test_info_of_a_model_lists_its_types_and_weights(lavis_lite_: Command) -> None:
    for name in ("blip_retrieval", "blip_retrieval.coco"):
        output = lavis_lite_("info", name)
        assert output.code == 0
        assert "types (the first is the default):" in output.lines
        assert any(line.startswith("  coco: https://") for line in output.lines)
        assert "  tiny: random weights" in output.lines


def test_info_of_a_model_shows_the_cards_of_its_weights(lavis_lite_: Command) -> None:
    lines = lavis_lite_("info", "blip_caption.base_coco").lines
    start = next(i for i, line in enumerate(lines) if line.startswith("  base_coco: https://"))
    assert lines[start + 2] == "    ViT-base, images of 384 pixels, licence BSD-3-Clause"
    assert lines[start + 3] == "    COCO test: BLEU-4 39.9, CIDEr 133.5, SPICE 23.7"
    assert lines[-1].startswith("other released files that load: model_base_14M.pth, ")
    assert "blip_coco_caption_base.pth" not in lines[-1]
    assert "retrieval" not in lines[-1]


def test_info_of_a_released_file_is_its_card(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "model_large.pth")
    assert output.lines[0] == "model_large.pth"
    assert output.lines[1].endswith("/BLIP/models/model_large.pth")
    assert "  weights of: blip_feature_extractor.large, blip_pretrain.large" in output.lines
    (fills,) = [line for line in output.lines if line.startswith("  fills: ")]
    assert "blip_caption.large_coco" in fills
    assert "base" not in fills
    assert "starts" not in output.out  # there are no large types of what it could start


def test_info_of_checkpoints_is_every_card(lavis_lite_: Command) -> None:
    lines = lavis_lite_("info", "checkpoints").lines
    files = [line for line in lines if line and not line.startswith(" ")]
    assert {"model_base.pth", "blip_okvqa.pth"} < set(files) == set(weight_cards())
    assert sum(line.startswith("  sha256: ") for line in lines) == len(files)


def test_info_of_a_name_of_several_kinds_shows_all_or_the_chosen(lavis_lite_: Command) -> None:
    both = lavis_lite_("info", "blip_caption").out
    assert "blip_caption (model), defined" in both
    assert "blip_caption (processor), defined" in both
    assert "(model)" not in lavis_lite_("info", "blip_caption", "--kind", "processor").out


def test_info_of_a_timm_model_shows_its_arguments(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "timm/test_vit")
    assert output.lines[0].startswith("timm/test_vit (vision_encoder), defined at ")
    assert "embed_dim=None" in output.lines[-1]


def test_info_of_nothing_names_the_nearest(lavis_lite_: Command) -> None:
    output = lavis_lite_("info", "itmm")
    assert output.code == 2
    assert output.err == "UnknownName: nothing is registered as 'itmm'. Did you mean 'itm'?\n"
    assert "Did you mean 'model_base.pth'?" in lavis_lite_("info", "model_bse.pth").err


# ---- env


def test_env_shows_versions_devices_and_folders(lavis_lite_: Command) -> None:
    output = lavis_lite_("env")
    rows = dict(line.split(maxsplit=1) for line in output.lines)
    assert output.code == 0
    assert rows["lavis_lite"] == lavis_lite.__version__
    assert {"python", "torch", "timm", "transformers", "device", "cache"} <= set(rows)
    assert rows["torchvision"]
    assert any(line.startswith("torchvision works") for line in output.lines)


@pytest.mark.fault(52)
def test_env_diagnoses_a_torchvision_that_does_not_fit(
    lavis_lite_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    output = lavis_lite_("env")
    (line,) = [line for line in output.lines if line.startswith("torchvision works")]
    assert "no: torchvision cannot be imported" in line
    assert "Reinstall both" in line
    assert "CPU builds of both" in line


# ---- run


def test_run_checks_binds_and_hands_the_config_to_its_runner(
    lavis_lite_: Command, cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(runners, "run", ran.append)
    for program, first in (("lavis-lite", ["run"]), ("run.py", [])):
        words = [*first, "--cfg", cfg, "optim.lr=1e-4", "run.seed=7"]
        assert lavis_lite_(*words, program=program).code == 0
    assert [(c.optim.lr, c.run.seed) for c in ran] == [(1e-4, 7), (1e-4, 7)]


@pytest.mark.parametrize(
    "words", [["a", "--dry-run", "b"], ["--dry-run", "a", "b"], ["a", "b", "--dry-run"]]
)
def test_overrides_stand_anywhere(lavis_lite_: Command, cfg: str, words: list[str]) -> None:
    overrides = {"a": "optim.lr=0.125", "b": "run.seed=7"}
    output = lavis_lite_("run", "--cfg", cfg, *(overrides.get(w, w) for w in words))
    assert output.code == 0
    assert "  lr: 0.125" in output.lines
    assert "  seed: 7" in output.lines


def test_a_dry_run_shows_config_and_parameters_and_does_nothing(
    lavis_lite_: Command, cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "run", None)
    output = lavis_lite_("run", "--cfg", cfg, "--dry-run", "model.vision={pretrained: true}")
    assert output.code == 0
    assert "  output_dir: never_written" in output.lines
    assert any("text_encoder_m" in line for line in output.lines)
    total, trained = (float(number) for number in re.findall(r"([\d.]+)M", output.lines[-1]))
    assert 0 < trained < total < 2
    assert [p.name for p in Path.cwd().iterdir()] == ["run.yaml"]


def test_a_dry_run_of_a_pipeline_describes_every_stage(lavis_lite_: Command, cfg: str) -> None:
    pipeline = Path(cfg).with_name("all.yaml")
    pipeline.write_text(
        "runner: {name: pipeline}\nstages: {one: {cfg: run.yaml}, "
        "two: {cfg: run.yaml, set: {model.name: blip_caption, model.type: tiny, run.seed: 9}}}\n"
        "run: {output_dir: out}"
    )
    output = lavis_lite_("run", "--cfg", str(pipeline), "--dry-run")
    assert output.code == 0
    assert [line for line in output.lines if line.startswith("# stage")] == [
        "# stage one",
        "# stage two",
    ]
    assert sum(" parameters, " in line for line in output.lines) == 2
    assert "  seed: 9" in output.lines


def test_a_dry_run_tells_what_the_runners_of_all_stages_refuse(
    lavis_lite_: Command, cfg: str
) -> None:
    pipeline = Path(cfg).with_name("all.yaml")
    pipeline.write_text(
        "runner: {name: pipeline}\nstages: {one: {cfg: run.yaml, set: {optim.eps: 0.0}}, "
        "two: {cfg: run.yaml, set: {run.max_step: 3}}}\nrun: {output_dir: out}"
    )
    output = lavis_lite_("run", "--cfg", str(pipeline), "--dry-run")
    assert (output.code, output.out) == (2, "")
    assert "stages.one: optim.eps: above 0, not 0.0" in output.err
    assert "stages.two: in `set`: run.max_step: unknown key. Did you mean 'max_steps'?" in (
        output.err
    )


def test_an_override_of_a_stage_that_is_not_there_names_the_nearest(
    lavis_lite_: Command,
) -> None:
    output = lavis_lite_("run", "--cfg", "quickstart", "stages.pretrian.set.run.seed=1")
    assert output.err == (
        "ConfigError: on the command line: stages.pretrian: unknown name. "
        "Did you mean 'pretrain'?\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["optim.lrr=1"], "ConfigError: on the command line: optim.lrr: unknown key. Did you"),
        (["model.losses.itc.alfa=1"], "ConfigError: on the command line: model.losses.itc: 'itc'"),
        (["model.name=blip_captoin"], "ConfigError: on the command line: model.name: no model"),
        (["run.output_dir"], "ConfigError: override 'run.output_dir' is not key=value"),
        (["plugins=[absent.py]"], "ConfigError: on the command line: plugins[0]: plugin "),
    ],
)
def test_a_config_that_cannot_run_is_one_line_and_exit_code_2(
    words: list[str], error: str, lavis_lite_: Command, cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was built")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    output = lavis_lite_("run", "--cfg", cfg, *words)
    assert (output.code, output.out) == (2, "")
    assert output.err.startswith(error)
    assert [p.name for p in Path.cwd().iterdir()] == ["run.yaml"]


def test_a_config_that_is_not_there_names_the_nearest(lavis_lite_: Command) -> None:
    output = lavis_lite_("run", "--cfg", "quikstart.yaml")
    assert (output.code, output.err) == (
        2,
        "ConfigError: no config file 'quikstart.yaml'. Did you mean 'quickstart.yaml'?\n",
    )


class NothingToResume(CheckpointError):
    exit_code = 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (UnknownName("x"), 2),
        (CheckpointError("x"), 2),
        (DataError("x"), 2),
        (DownloadError("x"), 2),
        (NothingToResume("x"), 3),
    ],
)
def test_errors_of_users_have_exit_codes_and_no_traceback(
    error: Exception, code: int, lavis_lite_: Command, cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: Any) -> None:
        raise error

    monkeypatch.setattr(runners, "run", fail)
    output = lavis_lite_("run", "--cfg", cfg)
    assert (output.code, output.err) == (code, f"{type(error).__name__}: x\n")
    with pytest.raises(type(error)):
        cli.main(["run", "--cfg", cfg, "--debug"])


def test_errors_of_programmers_keep_their_traceback(
    cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: Any) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(runners, "run", fail)
    with pytest.raises(AssertionError, match="a bug"):
        cli.main(["run", "--cfg", cfg])


def test_one_process_of_several_reports_a_config_that_cannot_run(
    lavis_lite_: Command, cfg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    output = lavis_lite_("run", "--cfg", cfg, "optim.lrr=1")
    assert (output.code, output.err) == (2, "")


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # In a process of its own: what is closed here is stdout.
    code = "import sys; from lavis_lite.cli import main; sys.exit(main(['list', '--json']))"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | head -c 1; exit ${{PIPESTATUS[0]}}',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "{"


@pytest.mark.parametrize("words", [[], ["fly"], ["run"], ["run", "--cfg", "x", "--dyr-run"]])
def test_a_wrong_command_line_shows_the_usage(words: list[str], lavis_lite_: Command) -> None:
    output = lavis_lite_(*words)
    assert output.code == 2
    assert output.err.startswith("usage: lavis-lite")


def test_help_and_version(lavis_lite_: Command) -> None:
    assert lavis_lite_("--version").out == f"{lavis_lite.__version__}\n"
    for words in (["--help"], ["run", "--help"], ["list", "--help"]):
        output = lavis_lite_(*words)
        assert output.code == 0
        assert output.out.startswith("usage: lavis-lite")
    assert lavis_lite_("--help", program="run.py").out.startswith("usage: run.py")


def test_run_py_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "run.py", "--cfg", "quickstart", "run.output_dri=x"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("ConfigError: on the command line: run.output_dri: unknown key.")
    assert done.stderr.count("\n") == 1
