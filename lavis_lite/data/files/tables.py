"""Annotation files as they come (JSON, JSON lines, CSV, parquet), read to plain rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.data.files.bad_rows import FOREIGN, BadRow, PlacedRow
from lavis_lite.data.files.delimited import table_rows
from lavis_lite.data.files.encodings import open_text
from lavis_lite.data.files.json_layouts import rows_in
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.errors import ConfigError, DataError, DownloadError, UnknownName, suggest
from lavis_lite.io import paths

Row = dict[str, Any]
_GLOB = set("*?[")


def read(
    path: str | list[str],
    kind: str,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Iterator[Row | BadRow]:
    """The rows of one or several annotation files: a path, URL, glob pattern, or a list of them.

    An entry that cannot be a row comes as a BadRow, so that the others can be read.

    Args:
        kind: `json` (a list of objects; COCO's and Karpathy's layouts, too), `jsonl`, `csv` or
            `parquet`. Text may be compressed (gzip, bzip2, xz).
        delimiter: of `csv`; by default what the file's name and header say.
        encoding: of text; by default UTF-8, or UTF-16 with its mark.

    Raises:
        DataError: a file that is missing or cannot be read, with its line where there is one.
    """
    for file in find(path):
        if kind == "csv":
            yield from table_rows(file, delimiter, encoding)
        elif kind == "parquet":
            yield from parquet_rows(file)
        else:
            yield from (jsonl_rows if kind == "jsonl" else json_rows)(file, encoding)


def find(path: str | list[str]) -> list[Path]:
    """The local files of a path, URL, glob pattern, or a list of them.

    Raises:
        DataError: one that is missing, with the nearest name beside it.
    """
    if not isinstance(path, str):
        return [file for one in path for file in find(one)]
    local = Path(paths.local_path(path))
    if local.is_file():
        return [local]
    if _GLOB & set(local.name) and local.parent.is_dir():
        every = sorted(local.parent.glob(local.name))
        visible = [one for one in every if local.name.startswith(".") or one.name[0] != "."]
        if visible:
            return visible
        raise DataError(f"{path}: no file matches")
    if local.is_dir():
        raise DataError(f"{path}: a folder, where a file is expected")
    beside = [file.name for file in local.parent.iterdir()] if local.parent.is_dir() else []
    missing = local.parent if not local.parent.is_dir() else path
    raise DataError(f"{missing}: no such file or folder.{suggest(local.name, beside)}")


@contextlib.contextmanager
def foreign(where: str | Path, layout: str) -> Iterator[None]:
    """Turn errors of code that reads rows of a known layout into one DataError about the file.

    Args:
        where: the file or files, for the message.
        layout: what the rows should be, such as "COCO's captions".

    Raises:
        DataError: in place of the errors that such rows lead to.
    """
    try:
        yield
    except (ConfigError, DataError, UnknownName, DownloadError):
        raise
    except FOREIGN as error:
        what = f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: not all of it is {layout}: {what:.200}") from error


def load_json(path: Path, encoding: str | None = None) -> Any:
    """Parse a JSON file; bytes that are not UTF-8 are escaped as in ``open_text``.

    Raises:
        DataError: it is not JSON.
    """
    with open_text(path, encoding) as file:
        try:
            return parse_json(file.read(), keep_bytes=True)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            hint = " (JSON lines? Use name: jsonl)" if "Extra data" in str(error) else ""
            raise DataError(f"{path}: not JSON: {error}{hint}") from None


def json_rows(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """The objects of a JSON list, or of a known layout, see ``json_layouts``."""
    data = load_json(path, encoding)
    rows = rows_in(path, data) if isinstance(data, dict) else data
    if isinstance(data, dict | list):
        for number, row in enumerate(rows):
            if isinstance(row, dict):
                yield PlacedRow(row, f"{path}: row {number}")
            elif isinstance(row, BadRow):
                yield row
            else:
                yield BadRow(
                    f"damaged row: {path}: row {number} is not an object but {str(row)[:60]!r}"
                )
    else:
        raise DataError(f"{path}: a JSON {type(data).__name__}, where a list of rows is expected")


def jsonl_rows(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """An object per line; empty lines are skipped."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line, keep_bytes=True)
            except ValueError as error:
                yield BadRow(f"damaged row: {path}:{number}: not JSON: {error}: {line[:60]!r}")
                continue
            if isinstance(row, dict):
                yield PlacedRow(row, f"{path}:{number}")
            else:
                yield BadRow(f"damaged row: {path}:{number}: not an object: {line[:60]!r}")


def parquet_rows(path: Path) -> Iterator[Row]:
    """The rows of a parquet file; a column of images (bytes) is kept in memory."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("reading parquet needs pyarrow: pip install 'lavis_lite[data]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a parquet file, or a damaged one: {error}") from None
