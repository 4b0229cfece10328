"""The pool that is chosen from: the records of a run as columns, a row for each text, in blocks.

A block is some shards of the run. Its columns are computed once, by the first pass, and read by
all others; all that is held in memory is a block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from lavis_lite.errors import DataError
from lavis_lite.io.json_files import read_json
from lavis_lite.projects.blip.capfilt.layout import DONE, JOB, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.tabulate import lines_path, shard_batches, table_path
from lavis_lite.projects.blip.capfilt.texts import CAPTIONER, WEB, RunRecords, added_scores

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 5_000
SCORE = "score:"  # prefixes of columns
FIELD = "field:"
IMAGE = "image:"


class Wanted(NamedTuple):
    """The columns that rules need besides texts and scores."""

    fields: tuple[str, ...] = ()  # of the rows
    image_texts: tuple[str, ...] = ()  # image scores that are texts, such as hashes


class Pool(NamedTuple):
    """The records of a run, and how its shards fall into blocks."""

    run: RunRecords
    blocks: list[list[int]]
    num_images: int
    scores: list[str]  # those that are numbers
    image_texts: list[str]  # image scores that are texts
    identity: str  # changes when the records or their scores do


def open_pool(folder: str | Path, unfinished_ok: bool, block_size: int) -> Pool:
    """Look at a run without reading its records.

    Args:
        folder: the run's output folder.
        unfinished_ok: take the shards that are done.
        block_size: images in a block, about.

    Raises:
        DataError: not a run, not finished, or a file of it is cut.
    """
    run = RunRecords(folder, unfinished_ok)
    blocks: list[list[int]] = []
    total = room = 0
    digest = hashlib.sha256()
    for shard in run.shards:
        mark = read_json(run.folder / SHARDS / f"{shard_name(shard)}{DONE}")
        _refuse_cut(run, shard, mark)
        number = mark.get("records", 0)
        if not blocks or room < number:
            blocks.append([])
            room = block_size
        blocks[-1].append(shard)
        room -= number
        total += number
        digest.update(json.dumps([shard, mark], sort_keys=True).encode())
    for path, _ in added_scores(run.folder):
        digest.update((path / JOB).read_bytes())
        for shard in run.shards:
            done = path / SHARDS / f"{shard_name(shard)}{DONE}"
            digest.update(done.read_bytes() if done.is_file() else b"-")
    texts = _image_texts(run)
    scores = [*run.text_scores, *(name for name in run.image_scores if name not in texts)]
    return Pool(run, blocks, total, scores, texts, digest.hexdigest()[:16])


def _refuse_cut(run: RunRecords, shard: int, mark: dict[str, Any]) -> None:
    path = lines_path(run.folder, shard)
    size = mark.get("files", {}).get(path.name, {}).get("size")
    if not path.is_file():
        if not table_path(run.folder, shard).is_file():
            raise DataError(f"{path}: missing, though its shard is done")
    elif size is not None and path.stat().st_size != size:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes of {size:,}: it was cut or changed; start the "
            "run of CapFilt again, it writes this shard anew"
        )


def _image_texts(run: RunRecords) -> list[str]:
    """Image scores that are texts, as the first shards that have them show."""
    import pyarrow as pa

    unknown, texts = set(run.image_scores), set()
    for shard in run.shards if unknown else ():
        for batch in shard_batches(run, shard, ROWS_AT_ONCE):
            columns = {name: batch.column(f"image_score_{name}") for name in unknown}
            seen = {name for name, own in columns.items() if own.null_count < len(own)}
            texts |= {name for name in seen if pa.types.is_string(columns[name].type)}
            unknown -= seen
            break
        if not unknown:
            break
    return [name for name in run.image_scores if name in texts]


def block_table(pool: Pool, block: int, wanted: Wanted) -> pa.Table:
    """Return the texts of a block as columns.

    ``key``, ``shard``, ``index``, ``image_row`` (number of the image in the block), ``place`` (0:
    web), ``source``, ``text``, ``sound`` (neither empty nor there before at its image), ``kept``
    (by the run's filter), ``score:NAME`` for all scores, ``field:NAME`` and ``image:NAME``.

    Raises:
        DataError: records that cannot be read, or a key that a shard has twice.
    """
    import pyarrow as pa

    pieces: list[pa.Table] = []
    num_images = 0
    for shard in pool.blocks[block]:
        seen: list[pa.Array] = []
        for batch in shard_batches(pool.run, shard, ROWS_AT_ONCE):
            seen.append(batch.column("key"))
            pieces.append(_exploded(pool, shard, batch, num_images, wanted))
            num_images += len(batch)
        _refuse_twice(seen, lines_path(pool.run.folder, shard))
    return pa.concat_tables(pieces).combine_chunks() if pieces else _nothing(pool, wanted)


def _refuse_twice(keys: Sequence[Any], where: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as compute

    flat = [chunk for one in keys for chunk in getattr(one, "chunks", [one])]
    every = pa.chunked_array(flat, pa.string())
    if len(compute.unique(every)) == len(every):
        return
    counts = compute.value_counts(every)
    twice = compute.filter(counts, compute.greater(counts.field("counts"), 1))[0]
    raise DataError(
        f"{where}: the key {twice['values'].as_py()!r} is there {twice['counts'].as_py()} times; "
        "a run writes each key of a shard once: was the file put together by hand?"
    )


def _exploded(
    pool: Pool, shard: int, batch: pa.RecordBatch | pa.Table, start: int, wanted: Wanted
) -> pa.Table:
    """Rows for the texts of some images: of each its web text, then the synthetic ones."""
    import pyarrow as pa
    import pyarrow.compute as compute

    table = pa.table(batch)
    synthetic = _flat(table, "synthetic", pa.string())
    counts = compute.list_value_length(table["synthetic"]).to_numpy() + 1
    image = numpy.repeat(numpy.arange(len(table)), counts)
    first = numpy.cumsum(counts) - counts
    is_web = numpy.zeros(len(image), bool)
    is_web[first] = True
    order = numpy.empty(len(image), numpy.int64)  # into [web texts, synthetic texts]
    order[is_web] = numpy.arange(len(table))
    order[~is_web] = len(table) + numpy.arange(len(image) - len(table))

    def both(web: pa.Array | pa.ChunkedArray, other: pa.Array) -> pa.Array:
        return pa.concat_arrays([_one(web), other]).take(pa.array(order))

    text = both(table["web_text"], synthetic)
    columns: dict[str, Any] = {
        "key": _one(table["key"]).take(pa.array(image)),
        "shard": pa.array(numpy.full(len(image), shard, numpy.int32)),
        "index": _one(table["index"]).take(pa.array(image)),
        "image_row": pa.array((start + image).astype(numpy.int32)),
        "place": pa.array((numpy.arange(len(image)) - first[image]).astype(numpy.int32)),
        "source": both(pa.array([WEB] * len(table), pa.string()), _sources(table, len(synthetic))),
        "text": text,
        "sound": pa.array(_sound(text, image)),
        "kept": both(table["web_kept"], _flat(table, "synthetic_kept", pa.bool_())),
    }
    columns |= _scores(pool, table, image, both)
    fields = _fields(table, wanted.fields)
    for name, values in fields.items():
        columns[f"{FIELD}{name}"] = pa.array(values, pa.string()).take(pa.array(image))
    for name in wanted.image_texts:
        values = _one(table[f"image_score_{name}"]).cast(pa.string())
        columns[f"{IMAGE}{name}"] = values.take(pa.array(image))
    return pa.table(columns)


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunks
            column = pa.concat_arrays(column.chunks)
    return column


def _flat(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    return _one(table[name]).flatten().cast(kind)


def _sources(table: pa.Table, number: int) -> pa.Array:
    import pyarrow as pa

    if "sources" in table.column_names:
        return _flat(table, "sources", pa.string())
    return pa.array([CAPTIONER] * number, pa.string())


def _sound(text: pa.Array, image: numpy.ndarray) -> numpy.ndarray:
    """(T,) texts and the numbers of their images -> (T,) False: empty, or there before."""
    import pyarrow.compute as compute

    codes = text.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    pairs = image.astype(numpy.int64) * (int(codes.max(initial=0)) + 1) + codes
    sound = numpy.zeros(len(image), bool)
    sound[numpy.unique(pairs, return_index=True)[1]] = True
    blank = compute.equal(compute.utf8_trim_whitespace(text), "")
    return sound & ~blank.to_numpy(zero_copy_only=False)


def _scores(
    pool: Pool,
    table: pa.Table,
    image: numpy.ndarray,
    both: Callable[[pa.ChunkedArray, pa.Array], pa.Array],
) -> dict[str, pa.Array]:
    import pyarrow as pa

    columns = {}
    named = f"web_score_{pool.run.kind}" in table.column_names
    for name in pool.scores:
        if name in pool.run.image_scores:
            values = _one(table[f"image_score_{name}"]).cast(pa.float64())
            columns[f"{SCORE}{name}"] = values.take(pa.array(image))
            continue
        suffix = f"_{name}" if name != pool.run.kind or named else ""
        own = _flat(table, f"synthetic_score{suffix}", pa.float64())
        columns[f"{SCORE}{name}"] = both(table[f"web_score{suffix}"], own)
    return columns


def _fields(table: pa.Table, names: Sequence[str]) -> dict[str, list[str | None]]:
    if not names:
        return {}
    rows = [json.loads(text) for text in table["fields"].to_pylist()]
    return {
        name: [None if (v := row.get(name)) is None else str(v) for row in rows] for name in names
    }


def _nothing(pool: Pool, wanted: Wanted) -> pa.Table:
    import pyarrow as pa

    kinds = {
        "key": pa.string(),
        "shard": pa.int32(),
        "index": pa.int64(),
        "image_row": pa.int32(),
        "place": pa.int32(),
        "source": pa.string(),
        "text": pa.string(),
        "sound": pa.bool_(),
        "kept": pa.bool_(),
        **{f"{SCORE}{name}": pa.float64() for name in pool.scores},
        **{f"{FIELD}{name}": pa.string() for name in wanted.fields},
        **{f"{IMAGE}{name}": pa.string() for name in wanted.image_texts},
    }
    return pa.schema(list(kinds.items())).empty_table()


def write_columns(table: pa.Table, path: Path) -> None:
    """Write the columns of a block."""
    import pyarrow as pa

    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as batches,
    ):
        batches.write_table(table.combine_chunks())


def read_column(path: Path, name: str) -> pa.Array:
    """Read a column of a block."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        schema = pa.ipc.open_file(file).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name)])
        return _one(pa.ipc.open_file(file, options=options).read_all()[name])
