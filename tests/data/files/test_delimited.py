"""Tables of text: which character separates them, and that every line is accounted for."""

from __future__ import annotations

import pytest

from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.delimited import table_rows
from lavis_lite.errors import ConfigError, DataError


def rows(tmp_path, name, content, delimiter=None):
    (tmp_path / name).write_text(content, newline="")
    return list(table_rows(tmp_path / name, delimiter))


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
def test_the_separator_is_found_in_the_header(tmp_path, separator):
    others = "".join(one for one in ",;|" if one != separator)
    content = f"image{separator}caption\na.png{separator}x {others} y\n"
    if separator == ",":
        content = content.replace(f"x {others} y", "x ;| y")
    (row,) = rows(tmp_path, "x.csv", content)
    assert row["image"] == "a.png"
    assert row["caption"].startswith("x ")


def test_another_separator_is_given_or_said(tmp_path):
    content = "image:caption\na.png:x\nb.png:y, z\n"
    assert [row["caption"] for row in rows(tmp_path, "x.csv", content, ":")] == ["x", "y, z"]
    one, two = rows(tmp_path, "x.csv", content)
    assert one == {"image:caption": "a.png:x"}
    assert "separated by ','" in two.reason
    assert "delimiter:" in two.reason
    with pytest.raises(ConfigError, match="one character"):
        rows(tmp_path, "x.csv", content, "::")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_between_tabs_every_line_is_a_row(tmp_path, end):
    lines = [
        "image\tcaption",
        'a\t"open',
        'b\tblue"',
        'c\t"all of it"',
        'd\tthe "word" in',
        "",
        "e",
    ]
    found = rows(tmp_path, "x.tsv", end.join(lines))
    assert [row["caption"] for row in found[:-1]] == [
        '"open',
        'blue"',
        "all of it",
        'the "word" in',
    ]
    assert isinstance(found[-1], BadRow)
    assert "x.tsv:7: not as many fields" in found[-1].reason


def test_a_quoted_tab_is_part_of_its_field(tmp_path):
    (row,) = rows(tmp_path, "x.tsv", 'image\tcaption\na\t"one\ttwo ""three"""\n')
    assert row["caption"] == 'one\ttwo "three"'


def test_between_commas_a_quoted_field_holds_line_ends_and_places_are_where_rows_begin(tmp_path):
    content = 'image,caption\na,"one\ntwo"\n\nb,c,d\n"e","f"\n'
    first, bad, last = rows(tmp_path, "x.csv", content)
    assert first["caption"] == "one\ntwo"
    assert first.place.endswith("x.csv:2")
    assert "x.csv:5: not as many fields" in bad.reason
    assert last.place.endswith("x.csv:6")


def test_quotes_that_leave_open_where_rows_begin_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x\.csv:3: .*quotes are doubled"):
        rows(tmp_path, "x.csv", 'image,caption\na,x\nb,"one" more\n')


def test_an_empty_file_has_no_rows(tmp_path):
    assert rows(tmp_path, "x.csv", "") == []
