"""The wheel carries the whole package, and works away from the checkout."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IGNORED = {"__pycache__", "build", "output", ".venv"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of what it is made of: a build leaves files in its tree."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for name in ("lavis_lite", "projects", "configs"):
        for path in files_under(name):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*command, "--no-index", "--wheel-dir", str(out), str(source)], cwd=source)
    (built,) = out.glob("lavis_lite-*.whl")
    return zipfile.ZipFile(built)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def test_every_source_and_data_file_travels_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    expected = {
        installed_as(path) for name in ("lavis_lite", "projects") for path in files_under(name)
    }
    expected |= {f"lavis_lite/{path.as_posix()}" for path in files_under("configs")}
    assert expected, "no source files were found"
    assert sorted(expected - packed) == []


def test_the_wheel_holds_nothing_outside_the_package(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top == {"lavis_lite", f"lavis_lite-{version()}.dist-info"}


def test_the_files_that_users_rely_on_are_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for name in (
        "lavis_lite/py.typed",
        "lavis_lite/zoo.yaml",
        "lavis_lite/configs/quickstart.yaml",
        "lavis_lite/projects/blip/__init__.py",
        "lavis_lite/projects/blip/zoo.yaml",
        "lavis_lite/projects/blip/README.md",
        "lavis_lite/report/templates/page.html.jinja",
        "lavis_lite/report/templates/page.css",
        "lavis_lite/projects/blip/capfilt/templates/pairs.html.jinja",
    ):
        assert name in packed


def test_the_description_has_no_link_that_needs_a_checkout(wheel: zipfile.ZipFile) -> None:
    info = f"lavis_lite-{version()}.dist-info"
    text = str(email.message_from_bytes(wheel.read(f"{info}/METADATA")).get_payload())
    prose = "".join(text.split("```")[::2])
    targets = re.findall(r"\]\(([^)]*)\)", prose)
    assert [target for target in targets if not target.startswith(("http://", "https://"))] == []
    assert "(`docs/index.rst`)" in prose
    assert 'vis_processors["eval"](pil_image)' in text


def test_the_metadata_names_licence_dependencies_and_command(wheel: zipfile.ZipFile) -> None:
    info = f"lavis_lite-{version()}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == ">=3.11"
    required = {line for line in metadata.get_all("Requires-Dist", []) if "extra" not in line}
    assert [line for line in required if ">=" not in line] == [], "without a floor"
    assert "omegaconf>=2.4" in required
    capped = {
        line for line in required if "<" in line and not line.startswith(("transformers", "httpx2"))
    }
    assert capped == set()
    extras = set(metadata.get_all("Provides-Extra", []))
    assert extras == {
        "data",
        "ray",
        "metrics",
        "log",
        "peft",
        "curation",
        "export",
        "app",
        "siglip",
        "photos",
        "test",
        "docs",
        "dev",
        "ci",
    }
    assert "lavis-lite = lavis_lite.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def test_the_lock_names_versions_alone_and_all_that_setup_asks_for(wheel: zipfile.ZipFile) -> None:
    info = f"lavis_lite-{version()}.dist-info"
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", pin)] == []
    locked = {pin.partition("==")[0] for pin in pins}
    asked = {
        re.split(r"[^\w.-]", line)[0].replace("_", "-").lower()
        for line in metadata.get_all("Requires-Dist", [])
    }
    assert len(asked) > 20
    assert asked - locked == set(), "make lock"


def test_the_command_line_lists_the_zoo_from_an_unpacked_wheel(
    unpacked: Path, tmp_path: Path
) -> None:
    listed = run([sys.executable, "-m", "lavis_lite.cli", "list"], cwd=tmp_path, path=unpacked)
    assert "blip_pretrain" in listed


def test_a_project_and_a_config_are_found_inside_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import lavis_lite.projects.blip as blip; from lavis_lite import config;"
        "print(blip.__file__); print(config.load('quickstart.yaml').runner)"
    )
    printed = run([sys.executable, "-c", code], cwd=tmp_path, path=unpacked)
    assert str(unpacked / "lavis_lite" / "projects" / "blip") in printed
    assert "pipeline" in printed


def test_an_outside_package_made_by_the_wheel_trains_with_it(
    unpacked: Path, tmp_path: Path
) -> None:
    cli = [sys.executable, "-m", "lavis_lite.cli"]
    run([*cli, "new", "project", "wheel_parts"], cwd=tmp_path, path=unpacked)
    source, site = tmp_path / "wheel_parts", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--no-index", "--target", str(site), str(source)], cwd=tmp_path)
    both = f"{unpacked}{os.pathsep}{site}"
    train = ["run", "--cfg", str(source / "configs/train.yaml"), "run.max_steps=1"]
    run([*cli, *train, "run.output_dir=out"], cwd=tmp_path, path=both)
    assert (tmp_path / "out/checkpoints/step-00000001/model.safetensors").is_file()


def test_another_package_called_projects_is_not_taken_for_ours(
    unpacked: Path, tmp_path: Path
) -> None:
    stranger = unpacked / "projects" / "stranger"
    stranger.mkdir(parents=True)
    (stranger / "zoo.yaml").write_text("components: {model: {.a: [stranger_model]}}\n")
    listed = run([sys.executable, "-m", "lavis_lite.cli", "list"], cwd=tmp_path, path=unpacked)
    assert "stranger_model" not in listed


def files_under(name: str) -> list[Path]:
    """Files of a source folder that git would take, relative to the root."""
    found = [
        path.relative_to(ROOT)
        for path in (ROOT / name).rglob("*")
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".pyc"
    ]
    return sorted(path for path in found if not IGNORED & set(path.parts))


def installed_as(path: Path) -> str:
    name = path.as_posix()
    return f"lavis_lite/{name}" if path.parts[0] == "projects" else name


def version() -> str:
    import lavis_lite

    return lavis_lite.__version__


def run(command: list[str], cwd: Path, path: Path | str | None = None) -> str:
    """Standard output of a command that must succeed; ``path`` becomes the only PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": str(path) if path else "", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
