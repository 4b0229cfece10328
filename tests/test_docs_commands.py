"""Every command line of the documentation means the same in bash and in an interactive zsh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.rst")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted(ROOT.glob("projects/*/README.md")),
    *sorted((ROOT / "lavis_lite/cli/templates").rglob("README*")),
]
PROGRAMS = ("make", "python", "python3", "pip", "lavis-lite", "torchrun", "cd", ".venv/bin/")
QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"")
# zsh refuses a pattern that no file fits, expands braces, and takes # for a word where one types.
SPECIAL = re.compile(r"[\[\]{}*?]|\s#")


def commands(text: str, is_markdown: bool) -> Iterator[str]:
    """The commands in console blocks, those that a backslash continues as one line."""
    text = text.replace("\\\n", " ")
    if is_markdown:
        shown = re.findall(r"```(?:console|bash|sh)?\n(.*?)```", text, re.DOTALL)
        lines = [line.strip() for block in shown for line in block.splitlines()]
        yield from (line for line in lines if line.startswith(PROGRAMS))
    else:
        yield from re.findall(r"^ +\$ (.*)$", text, re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    return [
        (page.name, command)
        for page in PAGES
        for command in commands(page.read_text(encoding="utf-8"), page.suffix != ".rst")
    ]


def test_the_commands_are_found() -> None:
    pages = {page for page, _ in shown()}
    assert {"README.md", "start.rst", "tasks.rst", "bootstrap_your_data.rst"} <= pages


@pytest.mark.parametrize(("page", "command"), shown())
def test_a_command_has_nothing_unquoted_that_zsh_reads_otherwise(page: str, command: str) -> None:
    bare = QUOTED.sub("quoted", command)
    assert not SPECIAL.search(bare), f"{page}: quote it, and put a comment on its own line"


@pytest.mark.parametrize(
    "command", ["pip install -e .[dev]", "run.py a={b: c}", "make demo  # two", "ls shapes/*.png"]
)
def test_what_zsh_reads_otherwise_is_noticed(command: str) -> None:
    assert SPECIAL.search(QUOTED.sub("quoted", command))
