"""Records as a parquet table: the same content, a row per image, for tools that read tables.

Columns, in order; every other tool may rely on their names and types:

====================  =============  ==========================================================
``key``               string         key of the sample
``index``             int64          its row in the source
``image``             string         path of the image, null where it has none
``image_id``          string         see ``image_id`` of the metadata
``web_text``          string         the text that came with the image
``synthetic``         list<string>   captions
``sources``           list<string>   which captioner wrote each (records of version 2)
``web_score``         double         score of the run's filter; null where it gave none
``synthetic_score``   list<double>   the same of each caption
``web_kept``          bool           verdict of the run's filter
``synthetic_kept``    list<bool>
``web_reason``        dictionary     its reason
``synthetic_reason``  list<string>
``fields``            string         JSON object: the other fields of the sample in the source
``web_score_NAME``    double         score of the scorer NAME (version 2)
``synthetic_score_NAME``  list<double>
``image_score_NAME``  double/string  score that belongs to the image (version 2)
====================  =============  ==========================================================

The file's metadata has under ``lavis_lite`` a JSON object: ``schema`` (version of these columns),
``records`` (version of the records), ``score`` (kind of the filter's score), ``text_scores``,
``image_scores``, ``image_id`` (``str``, ``int`` or ``json``: how to read that column), ``sha256``
(of the JSON lines that it was made from). Names of files that are no UTF-8 are escaped in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = 1
RECORDS_VERSION = 2  # the newest that is read
TABLE = ".parquet"
_META = b"lavis_lite"
Record = dict[str, Any]


def need_pyarrow(where: str) -> None:
    """Check that tables can be read and written.

    Raises:
        ConfigError: pyarrow is not installed; ``where`` is the key or option that asks for it.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{where}: tables need pyarrow: pip install 'lavis_lite[curation]'"
        ) from None


def table_of(
    records: Sequence[Record], where: str | Path, *, score: str | None = None, sha256: str = ""
) -> pa.Table:
    """Return records of one version as a table, see the module.

    Args:
        records: as a file of JSON lines has them.
        where: that file, for messages.
        score: kind of the filter's score.
        sha256: of the file.

    Raises:
        DataError: a record lacks a part, has a score that is no number, or is of a later version.
    """
    import pyarrow as pa

    version = _version(records, where)
    text_scores = list(records[0].get("text_scores", ())) if records else []
    image_scores = list(records[0].get("image_scores", ())) if records else []
    try:
        ids, id_kind = _image_ids(records)
        columns = _own_columns(records, ids, version)
        for name in text_scores:
            columns |= _score_columns([r["text_scores"][name] for r in records], f"_{name}")
        for name in image_scores:
            columns[f"image_score_{name}"] = _image_score(
                [r["image_scores"].get(name) for r in records]
            )
        for record in records:
            _check(record, where)
    except (LookupError, TypeError, AttributeError, pa.ArrowException) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{where}: not the records of a bootstrapping run: {said:.200}") from None
    about = {
        "schema": SCHEMA,
        "records": version,
        "score": score,
        "text_scores": text_scores,
        "image_scores": image_scores,
        "image_id": id_kind,
        "sha256": sha256,
    }
    return pa.table(columns).replace_schema_metadata({_META: json.dumps(about)})


def write_table(table: pa.Table, path: str | Path) -> None:
    """Write a table, all of it in one group of rows: a shard is far below 100 MB."""
    import pyarrow.parquet as parquet

    parquet.write_table(table, path, compression="zstd", row_group_size=max(1, len(table)))


def about(path: str | Path) -> dict[str, Any]:
    """Return what a table's metadata says of it, see the module.

    Raises:
        DataError: it is not such a table, or cannot be read, or is of a later version.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        metadata = parquet.read_schema(path).metadata or {}
        found = json.loads(metadata[_META])
        version = found["schema"]
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a table of records: {error!s:.200}") from None
    if version > SCHEMA or found["records"] > RECORDS_VERSION:
        raise DataError(
            f"{path}: schema {version} of records of version {found['records']}; this release "
            f"reads up to {SCHEMA} and {RECORDS_VERSION}: update lavis_lite"
        )
    return found


def batches(
    path: str | Path, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, so many at a time.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(rows, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def records_in(path: str | Path) -> Iterator[Record]:
    """Yield the records that a table was made from, equal to those of the JSON lines.

    Raises:
        DataError: it cannot be read.
    """
    known = about(path)
    decoders: dict[str, Callable[[str], object]] = {"int": int, "json": json.loads}
    decode = decoders.get(known["image_id"], str)
    for batch in batches(path, 1000):
        for row in batch.to_pylist():
            yield _record(row, known, decode)


def _record(row: dict[str, Any], known: dict[str, Any], decode: Callable[[str], object]) -> Record:
    record = {
        "key": row["key"],
        "index": row["index"],
        "image": row["image"],
        "image_id": decode(row["image_id"]),
        "web_text": row["web_text"],
        "synthetic": row["synthetic"],
        "scores": {"web": row["web_score"], "synthetic": row["synthetic_score"]},
        "kept": {"web": row["web_kept"], "synthetic": row["synthetic_kept"]},
        "reason": {"web": row["web_reason"], "synthetic": row["synthetic_reason"]},
        "fields": json.loads(row["fields"]),
    }
    if known["records"] > 1:
        record |= {
            "version": known["records"],
            "sources": row["sources"],
            "text_scores": {
                name: {"web": row[f"web_score_{name}"], "synthetic": row[f"synthetic_score_{name}"]}
                for name in known["text_scores"]
            },
            "image_scores": {name: row[f"image_score_{name}"] for name in known["image_scores"]},
        }
    return record


def _version(records: Sequence[Record], where: str | Path) -> int:
    versions = {record.get("version", 1) for record in records}
    if versions - {1, RECORDS_VERSION}:
        newest = max(versions - {1, RECORDS_VERSION}, key=str)
        raise DataError(
            f"{where}: records of version {newest!r}; this release reads up to {RECORDS_VERSION}: "
            "update lavis_lite"
        )
    if len(versions) > 1:
        raise DataError(f"{where}: records of several versions in one file")
    return versions.pop() if versions else 1


def _check(record: Record, where: str | Path) -> None:
    """Check that texts are there, lists about the captions as long, and scores numbers."""
    if not all(isinstance(text, str) for text in (record["web_text"], *record["synthetic"])):
        raise DataError(f"{where}: record {record['key']!r}: not all of its texts are texts")
    number = len(record["synthetic"])
    parts = [record["scores"], record["kept"], record["reason"]]
    parts += record.get("text_scores", {}).values()
    lists = [part["synthetic"] for part in parts]
    if "sources" in record:
        lists.append(record["sources"])
    if any(len(one) != number for one in lists):
        raise DataError(f"{where}: record {record['key']!r}: not a value for each of its captions")
    scores = [("scores", record["scores"]), *record.get("text_scores", {}).items()]
    for name, own in scores:
        for value in (own["web"], *own["synthetic"]):
            if value is not None and not math.isfinite(value):
                raise DataError(
                    f"{where}: record {record['key']!r}: its score `{name}` is {value}; a score is "
                    "a number or null: score it again, or write null"
                )


def _own_columns(records: Sequence[Record], ids: list[str], version: int) -> dict[str, pa.Array]:
    import pyarrow as pa

    strings, many = pa.string(), pa.list_(pa.string())
    columns = {
        "key": _strings([r["key"] for r in records]),
        "index": pa.array([r["index"] for r in records], pa.int64()),
        "image": _strings([r["image"] for r in records]),
        "image_id": _strings(ids),
        "web_text": _strings([r["web_text"] for r in records]),
        "synthetic": _strings([r["synthetic"] for r in records], many),
    }
    if version > 1:
        columns["sources"] = pa.array([r["sources"] for r in records], many)
    columns |= _score_columns([r["scores"] for r in records], "")
    columns["web_kept"] = pa.array([r["kept"]["web"] for r in records], pa.bool_())
    columns["synthetic_kept"] = pa.array(
        [r["kept"]["synthetic"] for r in records], pa.list_(pa.bool_())
    )
    reasons = pa.array([r["reason"]["web"] for r in records], strings)
    columns["web_reason"] = reasons.dictionary_encode()
    columns["synthetic_reason"] = pa.array([r["reason"]["synthetic"] for r in records], many)
    columns["fields"] = pa.array([json.dumps(r["fields"]) for r in records], strings)
    return columns


def _score_columns(scores: list[dict[str, Any]], suffix: str) -> dict[str, pa.Array]:
    import pyarrow as pa

    return {
        f"web_score{suffix}": pa.array([own["web"] for own in scores], pa.float64()),
        f"synthetic_score{suffix}": pa.array(
            [own["synthetic"] for own in scores], pa.list_(pa.float64())
        ),
    }


def _image_score(values: list[float | str | None]) -> pa.Array:
    import pyarrow as pa

    kind = pa.string() if any(isinstance(value, str) for value in values) else pa.float64()
    return pa.array(values, kind)


def _image_ids(records: Sequence[Record]) -> tuple[list[str], str]:
    ids = [record["image_id"] for record in records]
    if all(isinstance(one, str) for one in ids):
        return ids, "str"
    if all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        return [str(one) for one in ids], "int"
    return [json.dumps(one) for one in ids], "json"


def _strings(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Return an array of texts; what is no UTF-8 in them is escaped."""
    import pyarrow as pa

    try:
        return pa.array(values, kind or pa.string())
    except UnicodeEncodeError:
        return pa.array([_escaped(value) for value in values], kind or pa.string())


def _escaped(value: object) -> object:
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def in_chunks(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Yield lists of so many records, the last one shorter."""
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
