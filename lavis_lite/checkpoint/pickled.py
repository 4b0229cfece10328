"""Inspection of torch files without building any object in them. Imports no torch."""

from __future__ import annotations

import contextlib
import pickletools
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from lavis_lite.errors import CheckpointError

_LONGEST = 1000
_PICKLES = 5  # of an old torch file: two numbers, the machine, the object, its storages


def zip_members(path: Path) -> list[zipfile.ZipInfo]:
    """List the members of a torch file that is a zip; empty for any other file.

    Raises:
        CheckpointError: a zip whose list cannot be read, though torch's less strict reader might.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"{path}: is not a whole torch file: {error}") from None


def check_names(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a torch file with a name that no type has, before torch reads it.

    torch would refuse it too, but the search in its error message takes time quadratic in the
    name's length: minutes for the hundred kilobytes that a few damaged bytes can cause.

    Args:
        path: the file.
        members: the members of the archive; empty if the file is not a zip.

    Raises:
        CheckpointError: it has such a name.
    """
    longest = 0
    with contextlib.suppress(Exception):  # a damaged one: torch says what is wrong with it
        for operation, argument, _ in _operations(path, members):
            if operation.name == "GLOBAL":
                longest = max(longest, len(str(argument)))
    if longest > _LONGEST:
        raise CheckpointError(
            f"{path}: is not a whole torch file: a type in it has a name of {longest:,} characters"
        )


def _operations(
    path: Path, members: Sequence[zipfile.ZipInfo]
) -> Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]:
    if not members:
        with path.open("rb") as file:
            yield from _pickles(file, _PICKLES)
        return
    with zipfile.ZipFile(path) as archive:
        for member in members:
            if member.filename.endswith("data.pkl"):
                with archive.open(member) as file:
                    yield from _pickles(file, 1)


def _pickles(
    file: IO[bytes], count: int
) -> Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]:
    for _ in range(count):
        yield from pickletools.genops(file)
