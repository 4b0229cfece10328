"""What the documentation shows runs: its Python, its configs, its commands, its directives."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.rst") if "_build" not in p.parts)
HOWTOS = [p for p in PAGES if p.parent.name == "howto"]
WITH_CODE = [
    *HOWTOS,
    *(DOCS / f"{page}.rst" for page in ("start", "concepts", "gallery", "from_lavis", "sweeps")),
    DOCS / "bootstrap_your_data.rst",
    DOCS / "selections.rst",
    DOCS / "pipelines.rst",
    DOCS / "reference" / "config.rst",
    DOCS / "reference" / "datasets.rst",
]


class Block(NamedTuple):
    """A code block: its language, its file name if it is shown as one, and its text."""

    language: str
    caption: str | None
    text: str


def blocks(page: Path) -> list[Block]:
    pattern = re.compile(
        r"^\.\. code-block:: (?P<language>\w+)\n(?P<options>(?:   :.*\n)*)\n"
        r"(?P<body>(?:(?:   .*)?\n)+)",
        re.MULTILINE,
    )
    found = []
    for match in pattern.finditer(page.read_text(encoding="utf-8") + "\n"):
        caption = re.search(r":caption: (\S+)", match["options"])
        body = textwrap.dedent(match["body"]).strip() + "\n"
        found.append(Block(match["language"], caption[1] if caption else None, body))
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the pages show; programs among them have been run."""
    folder = tmp_path_factory.mktemp("docs")
    for page in WITH_CODE:
        for block in blocks(page):
            if block.caption:
                path = folder / block.caption
                path.parent.mkdir(parents=True, exist_ok=True)
                assert not path.exists(), f"two blocks are called {block.caption}"
                path.write_text(block.text, encoding="utf-8")
    install_entry_point(folder)
    return folder


def install_entry_point(folder: Path) -> None:
    """What pip would leave of the entry point that the project page shows."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ((group, points),) = project["entry-points"].items()
    info = folder / "acme_vlm-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme_vlm\nVersion: 0.1\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def outcomes(workplace: Path) -> dict[str, str]:
    """Page -> traceback of running its Python blocks in order, or an empty string."""
    pages = {
        page.name: "\n".join(
            f"import runpy; runpy.run_path({b.caption!r})" if b.caption else b.text
            for b in blocks(page)
            if b.language == "python" and (not b.caption or b.caption.startswith("make_"))
        )
        for page in WITH_CODE
    }
    return python(workplace, RUN_PAGES, json.dumps(pages))


RUN_PAGES = """
import contextlib, io, json, sys, traceback
outcomes = {}
for page, code in json.loads(sys.argv[1]).items():
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(compile(code, page, "exec"), {"__name__": page})
            outcomes[page] = ""
        except BaseException:
            outcomes[page] = traceback.format_exc()
print(json.dumps(outcomes))
"""

LOAD_CONFIGS = """
import json, sys
from lavis_lite import config
outcomes = {}
for name, path, overrides in json.loads(sys.argv[1]):
    try:
        loaded = config.load(path, overrides)
        if not hasattr(loaded, "stages"):
            config.bind(loaded)
        outcomes[name] = ""
    except Exception as error:
        outcomes[name] = f"{type(error).__name__}: {error}"
print(json.dumps(outcomes))
"""


def test_the_pages_are_found() -> None:
    assert {p.stem for p in HOWTOS} == {
        *("backbone", "loss", "scorer", "dataset", "project", "own_data"),
        *("command_line", "tasks", "dual_encoders", "blip2", "export", "frozen_encoders"),
    }
    assert all(blocks(page) for page in WITH_CODE)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.stem)
def test_the_python_of_a_page_runs(page: Path, outcomes: dict[str, str]) -> None:
    assert outcomes[page.name] == ""


RUN_COMMANDS = """
import contextlib, io, json, sys
from lavis_lite import cli
outcomes = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        outcomes.append([" ".join(words), cli.main(words), bool(out.getvalue())])
print(json.dumps(outcomes))
"""


def test_the_commands_on_pictures_run(workplace: Path, outcomes: dict[str, str]) -> None:
    assert outcomes["command_line.rst"] == ""  # it has made the pictures and the model
    lines = (DOCS / "howto" / "command_line.rst").read_text(encoding="utf-8").splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("$ lavis-lite ")]
    assert len(commands) >= 6
    words = [shlex.split(command)[2:] for command in commands]
    done = python(workplace, RUN_COMMANDS, json.dumps(words))
    # Captions that are written beside the images are not printed.
    assert [one for one in done if one[1:] != [0, "--sidecar" not in one[0]]] == []
    assert list((workplace / "where").glob("*.png"))


def shown_configs() -> list[str]:
    """File names of the configs on the pages."""
    shown = [b for p in PAGES for b in blocks(p) if b.language == "yaml"]
    assert [b.text for b in shown if not b.caption] == [], "a config without a file name"
    return [b.caption for b in shown if b.caption and not b.caption.endswith("zoo.yaml")]


def shown_commands() -> list[list[str]]:
    """The words behind ``--cfg`` of every ``run.py`` and ``lavis-lite run`` on the pages."""
    texts = [
        *PAGES,
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("projects/*/README.md"),
    ]
    lines = [line for page in texts for line in page.read_text(encoding="utf-8").splitlines()]
    found = [re.search(r"(?:run\.py|lavis-lite run) --cfg ([^`#]*)", line) for line in lines]
    commands = sorted({match[1].strip() for match in found if match})
    words = [re.findall(r"\"[^\"]*\"|'[^']*'|\S+", command) for command in commands]
    # FILE stands for any; the other is of the package that the page has just written.
    ours = [one for one in words if one[0] not in ("FILE", "configs/train.yaml")]
    return [[w.strip("\"'") for w in one] for one in ours]


@pytest.fixture(scope="module")
def loaded(workplace: Path) -> dict[str, str]:
    """Config, with its overrides -> why it does not load and bind, or an empty string."""
    cases = [[name] for name in shown_configs()] + shown_commands()
    arguments = [
        (" ".join(words), absolute(words[0]), [w for w in words[1:] if "=" in w]) for words in cases
    ]
    return python(workplace, LOAD_CONFIGS, json.dumps(arguments))


@pytest.mark.parametrize("name", shown_configs())
def test_the_configs_of_the_pages_load_and_bind(name: str, loaded: dict[str, str]) -> None:
    assert loaded[name] == ""


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_the_run_commands_of_the_documentation_load(
    words: list[str], loaded: dict[str, str]
) -> None:
    assert loaded[" ".join(words)] == ""


def test_the_command_lines_of_the_documentation_parse() -> None:
    """Of commands that the tests do not run; a project's own command reads its words itself."""
    from lavis_lite.cli import program

    pages = [*PAGES, ROOT / "README.md", *ROOT.glob("projects/*/README.md")]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    shown = [match[1] for line in lines if (match := re.match(r"\s*(?:\$ )?lavis-lite (.+)", line))]
    commands = sorted({line.partition("&&")[0].partition("#")[0] for line in shown})
    assert len(commands) > 20
    wrong = []
    for command in commands:
        try:
            program._parse(shlex.split(command), "lavis-lite")
        except SystemExit as ended:
            wrong += [command] if ended.code else []
    assert wrong == []


def test_the_python_of_the_readme_compiles() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    for number, code in enumerate(found):
        compile(code, f"README.md, block {number}", "exec")


def test_the_config_reference_names_every_key_once() -> None:
    sys.path.insert(0, str(DOCS / "_ext"))
    pytest.importorskip("docutils")
    try:
        from config_reference import describe
    finally:
        sys.path.remove(str(DOCS / "_ext"))
    from lavis_lite.config.schema import TrainConfig

    keys = re.findall(r"\* - ``([\w.*]+)``", "\n".join(describe(TrainConfig)))
    assert {"model", "optim.lr", "run.max_steps", "data.processors.image.train"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_the_drawing_is_well_formed() -> None:
    import xml.etree.ElementTree as ET

    drawing = ET.parse(DOCS / "_static" / "pieces.svg").getroot()
    texts = {"".join(node.itertext()) for node in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"config file", "registry", "runner"} <= texts


def absolute(path: str) -> str:
    inside = ROOT / path
    return str(inside) if inside.exists() else path


def python(folder: Path, code: str, *arguments: str):  # type: ignore[no-untyped-def]
    """The JSON that a program prints last, run in ``folder`` with the checkout importable."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
