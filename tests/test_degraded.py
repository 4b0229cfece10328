"""Broken and bare installations: what is missing is named, and the rest works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_lite import cli
from lavis_lite.errors import ConfigError
from lavis_lite.io.packages import naming_torchvision

ROOT = Path(__file__).resolve().parents[1]
PICTURE = str(ROOT / "docs" / "_static" / "report.png")
BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")'
ABSENT = """
import importlib.machinery, importlib.metadata
finder, true = importlib.machinery.PathFinder, importlib.metadata.version
find = finder.find_spec
def find_spec(name, *given, **how):
    return None if name == "torchvision" else find(name, *given, **how)
finder.find_spec = find_spec
def version(package):
    if package == "torchvision":
        raise importlib.metadata.PackageNotFoundError(package)
    return true(package)
importlib.metadata.version = version
"""
BERT = {"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 16} | {
    "num_hidden_layers": 1, "num_attention_heads": 2
}  # fmt: skip
TRY_ALL = """
import contextlib, io, json, sys
from lavis_lite import cli
outcomes = {}
def shown(name, words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    outcomes[name] = [code, out.getvalue() + err.getvalue()]
shown("list", ["list", "blip_c*"])
shown("env", ["env"])
shown("needs it", json.loads(sys.argv[1]))
from lavis_lite import registry
from lavis_lite.errors import ConfigError
try:
    encoder = registry.build("text_backbone", {"name": "hf/" + sys.argv[2]})
    outcomes["text"] = [0, str(encoder.width)]
except ConfigError as error:
    outcomes["text"] = [2, str(error)]
from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.metrics.caption import Caption
outcomes["data"] = [0, Scenes("web", size=3)[0]["text_input"]]
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module", params=["broken", "absent"])
def outcomes(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program sees beside a torchvision that cannot be imported."""
    folder = tmp_path_factory.mktemp(request.param)
    first, words = ABSENT, ["run", "--cfg", "blip/caption_scenes", "--dry-run"]
    if request.param == "broken":
        (folder / "torchvision").mkdir()
        (folder / "torchvision" / "__init__.py").write_text(BROKEN)
        first, words = "", ["caption", PICTURE, "--type", "scenes"]
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text(json.dumps(BERT))
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            first + TRY_ALL,
            json.dumps(words),
            f"{folder}/bert",
        ],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "is": request.param}


@pytest.mark.fault(52)
def test_what_needs_torchvision_names_it_and_the_remedies(outcomes: dict[str, Any]) -> None:
    code, shown = outcomes["needs it"]
    assert code == 2
    assert "Traceback" not in shown
    if outcomes["is"] == "broken":
        assert "torchvision cannot be imported (operator torchvision::nms does not exist)" in shown
        assert f"torch {torch.__version__.partition('+')[0]}" in shown
        assert "do not fit" in shown
    else:
        assert "torchvision is not installed" in shown
    assert "pip install --force-reinstall torch torchvision" in shown
    assert "CPU builds of both" in shown


@pytest.mark.fault(52)
def test_what_does_not_need_it_works_and_env_diagnoses_it(outcomes: dict[str, Any]) -> None:
    assert outcomes["list"][0] == 0
    assert "blip_caption" in outcomes["list"][1]
    assert "cannot be used" not in outcomes["list"][1]
    code, shown = outcomes["env"]
    assert code == 0
    assert "torchvision works  no: torchvision " in shown
    assert outcomes["data"][1]


@pytest.mark.fault(52)
def test_a_text_tower_needs_torchvision_only_where_it_is_broken(outcomes: dict[str, Any]) -> None:
    code, shown = outcomes["text"]
    if outcomes["is"] == "absent":
        assert (code, shown) == (0, "16")
    else:
        assert "torchvision cannot be imported" in shown
        assert "pip install --force-reinstall torch torchvision" in shown


def test_an_error_that_torchvision_has_no_part_in_stays_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError), naming_torchvision():
        _ = 1 / 0


@pytest.mark.fault(52)
@pytest.mark.parametrize("command", ["run", "caption"])
def test_a_gpu_that_is_not_there_is_said_and_how_to_go_on(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = {
        "run": [
            *("run", "--cfg", "blip/caption_scenes", "run.device=cuda"),
            f"run.output_dir={tmp_path / 'out'}",
        ],
        "caption": ["caption", PICTURE, "--type", "scenes", "--device", "cuda"],
    }
    assert cli.main(words[command]) == 2
    assert "'cuda', but CUDA is not available; use auto or cpu" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(52)
def test_a_table_that_needs_an_extra_names_it_and_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavis_lite.data.files.tables import read

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.csv").write_text("image,caption\na.jpg,a cat\n")
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'lavis_lite\[data\]'"):
        list(read(str(tmp_path / "a.parquet"), "parquet"))
    assert list(read(str(tmp_path / "a.csv"), "csv"))
