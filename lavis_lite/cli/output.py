"""Rows of results as JSON lines, each as soon as it is known, or as a table."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lavis_lite.errors import ConfigError
from lavis_lite.io.paths import here

Row = dict[str, Any]
_WIDEST = 60  # characters of a cell on a terminal; a file has them whole


class JsonLines:
    """An object per line, written at once: what was found before a crash is there after it."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, row: Row) -> None:
        """Write a row; escaped where the stream cannot hold it, as a name that is no UTF-8."""
        line = json.dumps(row, ensure_ascii=False)
        if line != _held(line, self.stream):
            line = json.dumps(row)
        self.stream.write(f"{line}\n")
        self.stream.flush()

    def close(self) -> None:
        """Nothing is left to write."""


class Table:
    """Columns side by side; their widths are known only at the end."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.rows: list[list[str]] = []
        self.widest = _WIDEST if stream.isatty() else sys.maxsize

    def write(self, row: Row) -> None:
        """Keep a row; those of one table have the same keys."""
        if not self.rows:
            self.rows.append([str(key) for key in row])
        self.rows.append([self._cell(value) for value in row.values()])

    def close(self) -> None:
        """Write the table."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        for row in self.rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.stream.write(_held("  ".join(cells).rstrip(), self.stream) + "\n")

    def _cell(self, value: object) -> str:
        if isinstance(value, list):
            return " | ".join(map(str, value))
        text = f"{value:.4f}" if isinstance(value, float) else " ".join(str(value).split())
        return text if len(text) <= self.widest else text[: self.widest - 3] + "..."


def _held(text: str, stream: IO[str]) -> str:
    """The text, with escapes for what the stream's encoding has no place for."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def opened(path: str | None, format: str | None) -> Iterator[JsonLines | Table]:
    """Open the output of rows; rows that were written stay after an error or an interruption.

    Args:
        path: a file, which is replaced; None is standard output.
        format: ``jsonl`` or ``table``; None: a table on a terminal, else JSON lines.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        if path is not None:
            path = here(path)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        stream = sys.stdout if path is None else open(path, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"--out: {path} cannot be written: {error.strerror or error}") from None
    format = format or ("table" if stream.isatty() else "jsonl")
    rows = Table(stream) if format == "table" else JsonLines(stream)
    try:
        yield rows
    finally:
        rows.close()
        if path is not None:
            stream.close()
