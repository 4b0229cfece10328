"""Texts and images that are there several times: DuckDB compares them, out of memory if need be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from lavis_lite.errors import ConfigError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_BITS = 64  # of a perceptual hash
BLOCK_BITS = 32  # a position is the block's number in the upper, the row in the lower half


def need_duckdb() -> None:
    """Check that DuckDB is there.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import duckdb  # noqa: F401
    except ImportError:
        raise ConfigError(
            "rules: duplicates and caps need duckdb: pip install 'lavis_lite[curation]'"
        ) from None


def hashes(values: pa.Array) -> pa.Array:
    """(T,) texts -> (T,) 64 bits of their MD5: equal texts have equal ones, and next to no others.

    A missing text has none.
    """
    import duckdb
    import pyarrow as pa

    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")  # more of them would mix the order
        connection.register("texts", pa.table({"value": values}))
        found = connection.sql("SELECT md5_number_lower(value) AS hash FROM texts")
        return found.to_arrow_table()["hash"].combine_chunks()


def perceptual(values: pa.Array) -> pa.Array:
    """(T,) hexadecimal hashes of 64 bits, as imagehash writes them -> (T,) uint64."""
    import pyarrow as pa

    numbers = [None if value is None else int(value, 16) for value in values.to_pylist()]
    return pa.array(numbers, pa.uint64())


def write_candidates(
    path: Path, ids: pa.Array, score: numpy.ndarray, position: numpy.ndarray
) -> None:
    """Write what a block has: whose id is missing is not compared."""
    import pyarrow as pa
    import pyarrow.compute as compute
    import pyarrow.parquet as parquet

    table = pa.table(
        {
            "id": ids,
            "score": pa.array(score, pa.float64(), from_pandas=True),
            "position": pa.array(position),
        }
    )
    parquet.write_table(table.filter(compute.is_valid(table["id"])), path, compression="zstd")


def write_repeats(
    files: Sequence[Path],
    path: Path,
    *,
    most: int = 1,
    within: int | None = None,
    memory: str,
    threads: int,
) -> None:
    """Write the positions of what goes, in order: all but the best ``most`` of equal ones.

    Of equally good ones the first of the pool are the best. With ``within``, also what is so near
    to something better: a chain of neighbours may leave more than one.

    Args:
        files: the candidates of all blocks.
        path: of the parquet file.
        most: how many of each may stay.
        within: bits that two hashes may differ in.
        memory: most that DuckDB holds; it writes the rest beside ``path``.
        threads: of DuckDB.
    """
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{memory}'")
        connection.execute(f"SET threads = {threads}")
        connection.execute(f"SET temp_directory = '{path.parent / 'spill'}'")
        connection.execute("SET preserve_insertion_order = false")
        listed = ", ".join(f"'{_quoted(file)}'" for file in files)
        connection.execute(
            f"CREATE VIEW candidates AS SELECT * FROM read_parquet([{listed}], "
            "hive_partitioning = false)"
        )
        gone = _gone(connection, most, within)
        connection.execute(
            f"COPY (SELECT position FROM ({gone}) ORDER BY position) TO '{_quoted(path)}' "
            "(FORMAT parquet, ROW_GROUP_SIZE 65536)"
        )


def _gone(connection: duckdb.DuckDBPyConnection, most: int, within: int | None) -> str:
    """The query for what goes."""
    ranked = (
        "SELECT *, row_number() OVER (PARTITION BY id ORDER BY score DESC NULLS LAST, position) "
        "AS rank FROM candidates"
    )
    equal = f"SELECT position FROM ({ranked}) WHERE rank > {most}"
    if not within:
        return equal
    # Two hashes that differ in at most `within` bits have one of `within + 1` bands in common.
    connection.execute(
        f"CREATE TABLE best AS SELECT id, coalesce(score, '-inf'::DOUBLE) AS score, position "
        f"FROM ({ranked}) WHERE rank = 1"
    )
    edges = numpy.linspace(0, _BITS, within + 2).round().astype(int).tolist()
    near = []
    for start, end in itertools.pairwise(edges):
        band = f"((id >> {start}) & {(1 << (end - start)) - 1}::UBIGINT)"
        near.append(
            f"SELECT worse.position FROM (SELECT *, {band} AS band FROM best) worse "
            f"JOIN (SELECT *, {band} AS band FROM best) better ON worse.band = better.band "
            "WHERE (better.score > worse.score OR (better.score = worse.score "
            "AND better.position < worse.position)) "
            f"AND bit_count(xor(worse.id, better.id)) <= {within}"
        )
    return f"{equal} UNION ({' UNION '.join(near)})"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def read_repeats(path: Path, block: int) -> numpy.ndarray:
    """Return the rows of a block that go, in order."""
    import pyarrow.parquet as parquet

    low = block << BLOCK_BITS
    rows = parquet.read_table(
        path, filters=[("position", ">=", low), ("position", "<", low + (1 << BLOCK_BITS))]
    )
    return rows["position"].to_numpy() - low
