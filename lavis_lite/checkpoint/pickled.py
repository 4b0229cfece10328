"""What a torch file holds, looked at without building anything of it. Imports no torch."""

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
    """What a torch file lists, if it is a zip; nothing of what is told apart by it may be hidden.

    Raises:
        CheckpointError: a zip whose list cannot be read; torch's own reader may be less strict.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"{path}: is no whole torch file: {error}") from None


def check_names(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse a torch file with a name that no type has, before torch reads it.

    torch would refuse it too, but searches its own message in a time that grows with the square of
    the name's length: minutes, for the hundred kilobytes that a slip of a few bytes can make of it.

    Args:
        path: the file.
        members: of the archive that it is; empty where it is none.

    Raises:
        CheckpointError: it has one.
    """
    longest = 0
    with contextlib.suppress(Exception):  # a damaged one: torch says what is wrong with it
        for operation, argument, _ in _operations(path, members):
            if operation.name == "GLOBAL":
                longest = max(longest, len(str(argument)))
    if longest > _LONGEST:
        raise CheckpointError(
            f"{path}: is no whole torch file: a type in it has a name of {longest:,} characters"
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
