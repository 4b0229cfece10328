"""The directive ``faults``: what must be survived, and the tests that inject each fault.

.. faults::

prints a table for every group of docs/faults.json. A test names its rows itself, with the marker
``fault``; it is read from the tests' source, so that the table cannot say more than they do.
"""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.nodes import nested_parse_with_titles

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "docs" / "faults.json"
TESTS = ROOT / "tests"


def rows() -> list[dict[str, Any]]:
    """The faults: ``row`` (a number), ``group``, ``fault`` and what ``must`` happen."""
    return json.loads(FAULTS.read_text(encoding="utf-8"))


def covered(tests: Path = TESTS) -> dict[int, list[str]]:
    """Row -> the tests that are marked with it, as ``file::name``, in the order of the files.

    Raises:
        ValueError: a marker with anything but literal row numbers, or one that no test bears.
    """
    found: dict[int, list[str]] = {}
    for file in sorted(tests.rglob("*.py")):
        for name, row in marked(file):
            listed = found.setdefault(row, [])
            if (test := f"{file.relative_to(tests)}::{name}") not in listed:
                listed.append(test)
    return found


def marked(file: Path) -> Iterator[tuple[str, int]]:
    """The tests of a file with the rows that their decorators name, cases included."""
    text = file.read_text(encoding="utf-8")
    if ".fault(" not in text:
        return
    tree = ast.parse(text, str(file))
    lists = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    borne: set[ast.Call] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for mark in _marks(node.decorator_list, lists):
                borne.add(mark)
                yield from ((node.name, row) for row in _numbers(mark, file))
    for mark in set(_calls(tree)) - borne:
        raise ValueError(f"{file}:{mark.lineno}: a marker that belongs to no test")


def _marks(decorators: list[ast.expr], lists: dict[str, ast.expr]) -> Iterator[ast.Call]:
    """Markers on a test: its own, those of its cases, and of cases that stand in a list above."""
    for decorator in decorators:
        yield from _calls(decorator)
        for name in ast.walk(decorator):
            if isinstance(name, ast.Name) and name.id in lists:
                yield from _calls(lists[name.id])


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "fault"
            and ast.unparse(node.func.value).endswith("mark")
        ):
            yield node


def _numbers(mark: ast.Call, file: Path) -> list[int]:
    numbers = [one.value for one in mark.args if isinstance(one, ast.Constant)]
    if mark.keywords or not mark.args or [type(n) for n in numbers] != [int] * len(mark.args):
        raise ValueError(f"{file}:{mark.lineno}: {ast.unparse(mark)}: numbers of rows are expected")
    return numbers  # type: ignore[return-value]


class FaultTable(Directive):
    """A section for each group, with a table of its faults."""

    def run(self) -> list[nodes.Node]:
        tests = covered()
        lines = [
            line
            for group, faults in itertools.groupby(rows(), key=lambda row: row["group"])
            for line in described(group, list(faults), tests)
        ]
        holder = nodes.section(document=self.state.document)
        nested_parse_with_titles(self.state, StringList(lines, str(FAULTS)), holder)
        return holder.children


def described(
    group: str, faults: list[dict[str, Any]], tests: dict[int, list[str]]
) -> Iterator[str]:
    """RST of one group."""
    yield from [group, "~" * len(group), "", ".. list-table::", "   :header-rows: 1"]
    yield from ["   :width: 100%", "   :widths: 4 24 32 40", ""]
    yield from ["   * - ", "     - the fault", "     - what happens", "     - tests"]
    for fault in faults:
        yield f"   * - {fault['row']}"
        yield from [f"     - {fault['fault']}", f"     - {fault['must']}"]
        names = [f"| ``{test}``" for test in tests.get(fault["row"], [])] or ["none"]
        yield f"     - {names[0]}"
        yield from (f"       {name}" for name in names[1:])
    yield ""


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("faults", FaultTable)
    # The tests are no sources of Sphinx's: the page is read anew in every build.
    app.connect("env-get-outdated", lambda *_: ["reliability"])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
