"""Annotation files as they come (JSON, JSON lines, CSV, parquet), read to plain rows."""

from __future__ import annotations

import contextlib
import csv
import io as streams
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lavis_lite.data.files.compressed import open_compressed
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.errors import ConfigError, DataError, DownloadError, UnknownName, suggest
from lavis_lite.io import paths

Row = dict[str, Any]
_GLOB = set("*?[")
_FOREIGN = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError)


def read(path: str | list[str], kind: str, delimiter: str | None = None) -> Iterator[Row]:
    """The rows of one or several annotation files: a path, URL, glob pattern, or a list of them.

    Args:
        kind: `json` (a list of objects; COCO's and Karpathy's layouts, too), `jsonl`, `csv` or
            `parquet`. Text may be compressed (gzip, bzip2, xz).
        delimiter: of `csv`; by default a tab where the name or the header says so, else a comma.

    Raises:
        DataError: a file that is missing or cannot be read, with its line where there is one.
    """
    for file in find(path):
        yield from csv_rows(file, delimiter) if kind == "csv" else _READERS[kind](file)


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
        found = sorted(local.parent.glob(local.name))
        if found:
            return found
        raise DataError(f"{path}: no file matches")
    if local.is_dir():
        raise DataError(f"{path}: a folder, where a file is expected")
    beside = [file.name for file in local.parent.iterdir()] if local.parent.is_dir() else []
    missing = local.parent if not local.parent.is_dir() else path
    raise DataError(f"{missing}: no such file or folder.{suggest(local.name, beside)}")


@contextlib.contextmanager
def foreign(where: str | Path, layout: str) -> Iterator[None]:
    """Around what reads rows of a known layout: they may have other fields, of other types.

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
    except _FOREIGN as error:
        what = f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: not all of it is {layout}: {what:.200}") from error


def load_json(path: Path) -> Any:
    """Whatever a JSON file holds.

    Raises:
        DataError: it is not JSON.
    """
    with _open_text(path) as file:
        try:
            return parse_json(file.read())
        except ValueError as error:
            hint = " (JSON lines? Use name: jsonl)" if "Extra data" in str(error) else ""
            raise DataError(f"{path}: not JSON: {error}{hint}") from None


def json_rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON list, or of a known layout: COCO's, Karpathy's, one list in a dict."""
    data = load_json(path)
    if isinstance(data, dict):
        data = _layout(path, data)
    if not isinstance(data, list):
        raise DataError(f"{path}: a JSON {type(data).__name__}, where a list of rows is expected")
    for number, row in enumerate(data):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is not an object but {str(row)[:60]!r}")
        yield row


def jsonl_rows(path: Path) -> Iterator[Row]:
    """An object per line; empty lines are skipped."""
    with _open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}: {line[:60]!r}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: not an object: {line[:60]!r}")
            yield row


def csv_rows(path: Path, delimiter: str | None = None) -> Iterator[Row]:
    """A row per line, named by the header."""
    with _open_text(path) as file:
        if delimiter is None:
            delimiter = _delimiter(path)
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: not as many fields as the header has"
                        f" ({len(reader.fieldnames or ())}): {list(row.values())!r:.100}"
                    )
                yield row
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from None


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


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "json": json_rows,
    "jsonl": jsonl_rows,
    "parquet": parquet_rows,
}


def _open_text(path: Path) -> IO[str]:
    return streams.TextIOWrapper(
        open_compressed(path), encoding="utf-8-sig", errors="replace", newline=""
    )


def _delimiter(path: Path) -> str:
    with _open_text(path) as file:
        header = file.readline()
    tabbed = ".tsv" in path.suffixes or ("\t" in header and "," not in header)
    return "\t" if tabbed else ","


def _layout(path: Path, data: Row) -> Any:
    pictures = data.get("images")
    if isinstance(pictures, list) and isinstance(data.get("annotations"), list):
        with foreign(path, "COCO's captions"):
            return _coco(path, pictures, data["annotations"])
    first = pictures[0] if isinstance(pictures, list) and pictures else None
    if isinstance(first, dict) and "sentences" in first:
        with foreign(path, "Karpathy's splits"):
            return [_karpathy(row) for row in data["images"]]
    lists = [value for value in data.values() if isinstance(value, list)]
    if len(lists) != 1:
        raise DataError(
            f"{path}: an object with {', '.join(data)}; expected a list of rows, COCO's layout"
            " (images, annotations) or Karpathy's (images with sentences)"
        )
    return lists[0]


def _coco(path: Path, pictures: list[Row], annotations: list[Row]) -> list[Row]:
    captions: dict[Any, list[str]] = {picture["id"]: [] for picture in pictures}
    for annotation in annotations:
        try:
            captions[annotation["image_id"]].append(annotation["caption"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: annotation {annotation!r:.100}: no {error}") from None
    return [
        {
            "image": picture["file_name"],
            "caption": captions[picture["id"]],
            "image_id": picture["id"],
            **({"domain": picture["domain"]} if "domain" in picture else {}),  # of NoCaps
        }
        for picture in pictures
    ]


def _karpathy(row: Row) -> Row:
    folder = row.get("filepath")
    return {
        "image": f"{folder}/{row['filename']}" if folder else row["filename"],
        "caption": [sentence["raw"] for sentence in row["sentences"]],
        "image_id": row.get("cocoid", row.get("imgid", row["filename"])),
        "split": row.get("split", ""),
    }
