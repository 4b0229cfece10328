"""A package from outside: installed, found by its entry point, trained from a config; and made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lavis_lite import cli
from lavis_lite.cli.new_project import name_problem, write_project
from lavis_lite.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/acme_plugin"


def install(source: Path, site: Path) -> None:
    """pip install into a folder of its own; nothing is fetched."""
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def python(*arguments: str, site: Path, cwd: Path, library: Path = ROOT) -> str:
    """The output of a Python that sees the library and what is installed in ``site``."""
    path = os.pathsep.join([str(library), str(site)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example's source, copied as a build leaves files in it, and where it is installed."""
    folder = tmp_path_factory.mktemp("acme")
    source = shutil.copytree(EXAMPLE, folder / "source")
    install(source, folder / "site")
    return source, folder / "site"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A new project's source, and where it is installed."""
    folder = tmp_path_factory.mktemp("made")
    write_project("my_parts", folder)
    install(folder / "my_parts", folder / "site")
    return folder / "my_parts", folder / "site"


# ---- the example


def test_an_installed_package_is_listed_and_trained_from_its_config(
    acme: tuple[Path, Path], tmp_path: Path
) -> None:
    source, site = acme
    shutil.rmtree(source / "acme_plugin")  # from here on only what is installed counts
    listed = python("-m", "lavis_lite.cli", "list", "--json", "acme*", site=site, cwd=tmp_path)
    assert json.loads(listed) == {"model": {"acme_plugin_dual": ["tiny"]}}
    python(
        *(str(ROOT / "run.py"), "--cfg", str(source / "configs/train.yaml")),
        *(
            "run.max_steps=3",
            "run.log_every=1",
            "run.loggers=[jsonl]",
            f"run.output_dir={tmp_path}",
        ),
        site=site,
        cwd=tmp_path,
    )
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [record for record in records if "loss" in record]
    assert [record["step"] for record in trained] == [1, 2, 3]
    assert all({"loss_margin", "loss_info_nce"} <= set(record) for record in trained)
    assert any("evaluate" in record for record in records)


def test_its_parts_work_in_blip(acme: tuple[Path, Path], tmp_path: Path) -> None:
    code = (
        "import torch; from lavis_lite import create_model\n"
        "vision = {'name': 'acme_plugin_patchnet', 'width': 16}\n"
        "losses = {'margin': {'name': 'acme_plugin_margin'}, 'itc': None}\n"
        "model = create_model('blip_pretrain', 'tiny', vision=vision, losses=losses)\n"
        "batch = {'image': torch.randn(2, 3, 64, 64), 'text_input': ['a cat', 'a dog']}\n"
        "output = model(batch); output.loss.backward()\n"
        "print(sorted(output.losses), type(model.visual_encoder).__module__)"
    )
    printed = python("-c", code, site=acme[1], cwd=tmp_path)
    assert printed.split("\n")[0] == "['itm', 'lm', 'margin'] acme_plugin.backbone"


# ---- a new project


def test_the_example_is_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", "project", "acme_plugin", "--into", str(tmp_path)]) == 0
    written = {p.relative_to(tmp_path): p.read_text() for p in files(tmp_path)}
    kept = {p.relative_to(EXAMPLE.parent): p.read_text() for p in files(EXAMPLE)}
    assert written == kept
    printed = capsys.readouterr().out
    assert all(str(tmp_path / path) in printed for path in written)
    assert "lavis-lite run --cfg configs/train.yaml" in printed


def test_what_it_wrote_passes_its_own_tests(made: tuple[Path, Path]) -> None:
    source, site = made
    printed = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", site=site, cwd=source)
    assert "3 passed" in printed


def test_what_it_wrote_runs(made: tuple[Path, Path], tmp_path: Path) -> None:
    source, site = made
    python(
        *("-m", "lavis_lite.cli", "run", "--cfg", "configs/train.yaml"),
        *("run.max_steps=1", f"run.output_dir={tmp_path}/out"),
        site=site,
        cwd=source,
    )
    assert (tmp_path / "out/checkpoints/step-00000001/manifest.json").is_file()


@pytest.mark.parametrize(
    ("name", "free"),
    [
        ("My-Parts", "'my_parts' would be"),
        ("3d", "'d' would be"),
        ("class", "'class_parts' would be"),
        ("...", "'my' would be"),
        ("json", "'my_json' is free"),
        ("lavis_lite", "'my_lavis_lite' is free"),
    ],
)
def test_a_name_that_no_package_can_have_is_refused_with_one_that_it_can(
    name: str, free: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", "project", name, "--into", str(tmp_path)]) == 2
    assert free in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_a_package_can_have_is_fine() -> None:
    assert name_problem("acme_vision2") is None


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine_alone").mkdir()
    with pytest.raises(ConfigError, match=r"mine_alone is there already; choose another name"):
        write_project("mine_alone", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"Not a directory|File exists"):
        write_project("mine_alone", tmp_path / "file")


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
