"""A run's files as they are read back: its job, its finished shards, the lines of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.data.files.json_text import parse_json
from lavis_lite.errors import DataError
from lavis_lite.projects.blip.capfilt.layout import DONE, JOB, SHARDS


def read_job(folder: Path) -> dict[str, Any]:
    """Return what a run is of: ``source``, ``num_shards``, ``fingerprint``, ``settings`` ...

    Raises:
        DataError: the folder is not the output of a bootstrapping run, or cannot be read.
    """
    try:
        job = parse_json((folder / JOB).read_bytes(), keep_bytes=True)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: not the output of a bootstrapping run, no {JOB} in it"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / JOB}: cannot be read: {error}") from None
    fields = job if isinstance(job, dict) else {}
    source, num_shards = fields.get("source"), fields.get("num_shards")
    if not isinstance(source, dict) or not isinstance(num_shards, int):
        raise DataError(f"{folder / JOB}: has no `source` (a dataset) or `num_shards` (a number)")
    return fields


def finished_shards(folder: Path, num_shards: int, unfinished_ok: bool) -> list[int]:
    """Return the numbers of the shards that are done, in order.

    Raises:
        DataError: not all of them are, unless ``unfinished_ok`` and some are.
    """
    names = (file.stem for file in (folder / SHARDS).glob(f"shard-*{DONE}"))
    found = (int(number) for name in names if (number := name.rpartition("-")[2]).isdecimal())
    done = sorted(number for number in found if number < num_shards)
    if len(done) < num_shards and not (unfinished_ok and done):
        raise DataError(
            f"{folder}: {num_shards - len(done)} of {num_shards} shards are not done; start the "
            "run again to finish it, or read what there is with unfinished_ok: true"
        )
    return done


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard's file of JSON lines.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield parse_json(line, keep_bytes=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
