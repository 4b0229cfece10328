"""The table of faults: its rows, and how the tests that cover them are found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

EXTENSIONS = str(Path(__file__).resolve().parents[1] / "docs" / "_ext")

pytest.importorskip("docutils")
pytest.importorskip("sphinx")
sys.path.insert(0, EXTENSIONS)
try:
    import fault_table
finally:
    sys.path.remove(EXTENSIONS)

MARKED = """
import pytest

CASES = [1, pytest.param(2, marks=pytest.mark.fault(24))]

@pytest.mark.fault(22, 23)
@pytest.mark.parametrize("case", CASES)
def test_bombs(case): ...

@pytest.mark.parametrize("case", [pytest.param(1, marks=[pytest.mark.slow, pytest.mark.fault(7)])])
def test_cases(case): ...
"""


def test_the_rows_are_numbered_without_a_gap() -> None:
    assert [row["row"] for row in fault_table.rows()] == list(range(1, 57))
    assert all(row["fault"] and row["must"] and row["group"] for row in fault_table.rows())


def test_markers_are_found_on_tests_on_their_cases_and_in_lists_of_cases(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(MARKED)
    assert fault_table.covered(tmp_path) == {
        22: ["test_a.py::test_bombs"],
        23: ["test_a.py::test_bombs"],
        24: ["test_a.py::test_bombs"],
        7: ["test_a.py::test_cases"],
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@pytest.mark.fault(row)\ndef test_a(): ...", "numbers of rows are expected"),
        ("@pytest.mark.fault()\ndef test_a(): ...", "numbers of rows are expected"),
        ("@pytest.mark.fault(True)\ndef test_a(): ...", "numbers of rows are expected"),
        ("@pytest.mark.fault(3)\ndef helper(): ...", "belongs to no test"),
    ],
)
def test_a_marker_that_cannot_be_read_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "test_a.py").write_text(text)
    with pytest.raises(ValueError, match=says):
        fault_table.covered(tmp_path)


def test_every_fault_is_injected_by_a_test_and_no_marker_names_another() -> None:
    known = {row["row"] for row in fault_table.rows()}
    marked = fault_table.covered()
    assert sorted(known - marked.keys()) == [], "rows that no test covers"
    assert sorted(marked.keys() - known) == [], "markers of rows that docs/faults.json lacks"
