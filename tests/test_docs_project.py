"""The package that the page about projects shows is installed by its own pyproject.toml."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "howto" / "project.rst"
SHOWN = re.compile(
    r"^\.\. code-block:: \w+\n   :caption: (\S+)\n\n((?:(?:   .*)?\n)+)", re.MULTILINE
)
USE = """
import lavis_lite
assert lavis_lite.list_models("acme*") == ["acme_dual"], lavis_lite.list_models("acme*")
print(type(lavis_lite.create_model("acme_dual")).__module__)
"""


def python(*words: str, path: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True
    )


def test_the_package_of_the_page_is_installed_and_found(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="builds a wheel without fetching anything")
    pytest.importorskip("pip", reason="installs it")
    source, target = tmp_path / "source", tmp_path / "target"
    for name, text in SHOWN.findall(PAGE.read_text(encoding="utf-8") + "\n"):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).strip() + "\n", encoding="utf-8")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = python(*install, "--target", str(target), str(source), path=[], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (target / "acme_vlm" / "zoo.yaml").is_file()
    used = python("-c", USE, path=[ROOT, target], cwd=tmp_path)
    assert used.stdout.strip() == "acme_vlm.dual", used.stderr
