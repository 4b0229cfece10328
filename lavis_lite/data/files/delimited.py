"""Tables of text: CSV and TSV with a header, read without losing a line."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from lavis_lite.data.files.bad_rows import BadRow, PlacedRow
from lavis_lite.data.files.encodings import open_text
from lavis_lite.errors import ConfigError, DataError

_DELIMITERS = (",", "\t", ";", "|")


def table_rows(
    path: Path, delimiter: str | None = None, encoding: str | None = None
) -> Iterator[PlacedRow | BadRow]:
    """Yield the rows of a table with a header, each a dict.

    Between commas, semicolons and bars, quotes are those of RFC 4180, and a quoted field may hold
    line ends. Between tabs every line is a row: a quote that nothing closes is a character.

    Args:
        path: the file.
        delimiter: a character; by default a tab where the file is named so, else whichever of
            comma, tab, semicolon and bar the header has most.
        encoding: see ``open_text``.

    Raises:
        ConfigError: the delimiter is not one character.
        DataError: quotes that leave open where rows begin.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise ConfigError(f"delimiter: {delimiter!r}; one character")
    with open_text(path, encoding) as file:
        first = file.readline()
        delimiter = delimiter or _delimiter(path, first)
        lines = itertools.chain([first], file)
        rows = _lines(lines, delimiter) if delimiter == "\t" else _records(path, lines, delimiter)
        _, header = next(rows, (1, []))
        for number, row in rows:
            if len(row) == len(header):
                yield PlacedRow(zip(header, row, strict=True), f"{path}:{number}")
            else:
                yield BadRow(
                    f"damaged row: {path}:{number}: not as many fields as the header has"
                    f" ({len(header)}): {row!r:.100}; they are separated by {delimiter!r}, another"
                    " is given with delimiter:"
                )


def _delimiter(path: Path, header: str) -> str:
    if ".tsv" in path.suffixes:
        return "\t"
    return max(_DELIMITERS, key=lambda one: header.count(one))  # the first of equals


def _records(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield rows by RFC 4180 with the lines they begin in; empty lines are none."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    begin = 1
    try:
        for row in reader:
            if row:
                yield begin, row
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{begin}: {error}: in a quoted field, quotes are doubled and the last one ends"
            " it"
        ) from None


def _lines(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield lines as rows; quotes count as quotes where the line has as many fields then."""
    width = 0
    for number, line in enumerate(lines, start=1):
        plain = line.rstrip("\r\n")
        if not plain:
            continue
        fields = plain.split(delimiter)
        try:
            quoted = next(csv.reader([plain], delimiter=delimiter, strict=True))
        except csv.Error:
            quoted = fields
        width = width or len(quoted)
        yield number, quoted if len(quoted) == width else fields
