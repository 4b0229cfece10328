"""Tables of a run's records: written beside them, and read in their place while current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_lite.errors import DataError
from lavis_lite.io.files import whole_file
from lavis_lite.projects.blip.capfilt.layout import RECORDS, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.reading import read_lines
from lavis_lite.projects.blip.capfilt.table import (
    TABLE,
    about,
    batches,
    in_chunks,
    need_pyarrow,
    records_in,
    table_of,
    write_table,
)
from lavis_lite.projects.blip.capfilt.texts import RunRecords, records_hash

if TYPE_CHECKING:
    import pyarrow as pa


def tabulate(folder: str | Path, unfinished_ok: bool = False) -> list[Path]:
    """Write a table beside the records of every shard of a run that has no current one.

    Scores that were added to the run are joined. Started again after a kill, it writes what is
    missing.

    Args:
        folder: the run's output folder.
        unfinished_ok: take the shards that are done of a run that is not.

    Returns:
        The tables that were written.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: not a run, or its records cannot be read.
    """
    need_pyarrow("tabulate")
    run = RunRecords(folder, unfinished_ok)
    written = []
    for shard in run.shards:
        if not is_current(run, shard):
            path = table_path(run.folder, shard)
            write_shard(list(_lines(run, shard)), path, run, shard)
            written.append(path)
    return written


def write_shard(records: list[dict[str, Any]], path: Path, run: RunRecords, shard: int) -> None:
    """Write the table of a shard, whole or not at all."""
    digest = records_hash(run.folder, shard) or ""
    table = table_of(records, lines_path(run.folder, shard), score=run.kind, sha256=digest)
    with whole_file(path) as temporary:
        write_table(table, temporary)


def lines_path(folder: Path, shard: int) -> Path:
    """Return the path of a shard's records as JSON lines."""
    return folder / SHARDS / f"{shard_name(shard)}{RECORDS}"


def table_path(folder: Path, shard: int) -> Path:
    """Return the path of a shard's records as a table."""
    return folder / SHARDS / f"{shard_name(shard)}{TABLE}"


def is_current(run: RunRecords, shard: int) -> bool:
    """Tell whether a shard has a table that holds its records with all scores of the run.

    Where the JSON lines are gone the table is all there is, and counts as current.
    """
    path = table_path(run.folder, shard)
    if not path.is_file():
        return False
    if not lines_path(run.folder, shard).is_file():
        return True
    known = about(path)
    if known["sha256"] != (records_hash(run.folder, shard) or ""):
        return False
    scores = {known["score"], *known["text_scores"]} - {None}
    return set(run.text_scores) <= scores and set(run.image_scores) <= {*known["image_scores"]}


def shard_batches(run: RunRecords, shard: int, rows: int) -> Iterator[pa.RecordBatch | pa.Table]:
    """Yield the records of a shard as tables of so many rows, from its table or its JSON lines.

    Raises:
        DataError: they cannot be read.
    """
    if is_current(run, shard):
        yield from batches(table_path(run.folder, shard), rows)
        return
    where = lines_path(run.folder, shard)
    for chunk in in_chunks(_lines(run, shard), rows):
        yield table_of(chunk, where, score=run.kind)


def shard_records(folder: Path, shard: int) -> Iterator[dict[str, Any]]:
    """Yield the records of a shard, from its JSON lines or, where those are gone, from its table.

    Raises:
        DataError: there is neither, or they cannot be read.
    """
    lines, table = lines_path(folder, shard), table_path(folder, shard)
    if lines.is_file() or not table.is_file():
        yield from read_lines(lines)
    else:
        need_pyarrow(str(table))
        yield from records_in(table)


def _lines(run: RunRecords, shard: int) -> Iterator[dict[str, Any]]:
    """The records as they are written; with scores that were added, of version 2."""
    path = lines_path(run.folder, shard)
    records = run.read(shard) if has_added(run) else read_lines(path)
    whole = 0
    try:
        for record in records:
            yield record
            whole += 1
    except DataError as error:
        if str(path) in str(error):
            raise DataError(
                f"{error} (after {whole} whole records: was the file cut? Delete "
                f"{shard_name(shard)}.done and start the run again: it writes this shard anew)"
            ) from None
        raise


def has_added(run: RunRecords) -> bool:
    """Tell whether scores were added to a run after it."""
    of_run = {run.kind, *run.job.get("text_scores", ()), *run.job.get("image_scores", ())}
    return bool({*run.text_scores, *run.image_scores} - of_run)
