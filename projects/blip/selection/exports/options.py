"""Options of an export, and files and folders that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lavis_lite.errors import ConfigError
from lavis_lite.io import files


@dataclass(frozen=True)
class Options:
    """Options of an export; each format takes those that mean something to it.

    Attributes:
        overwrite: replace what is there.
        shard_size: images in a shard, at most.
        license: of the source, for the card.
        prefix, suffix: put around a text beside an image.
        existing: texts that lie beside an image already: leave them and stop, leave them and go
            on, replace them, or append to them.
    """

    overwrite: bool = False
    shard_size: int = 10_000
    license: str = "unknown"
    prefix: str = ""
    suffix: str = ""
    existing: Literal["refuse", "skip", "overwrite", "append"] = "refuse"

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ConfigError(f"--shard-size: {self.shard_size}; at least 1")


@contextlib.contextmanager
def whole_file(path: Path, options: Options) -> Iterator[Path]:
    """A file to write; it gets its name when all of it is there.

    Raises:
        ConfigError: there is one, and it may not be overwritten.
    """
    refuse_existing(path, options)
    with files.whole_file(path) as temporary:
        yield temporary


@contextlib.contextmanager
def whole_folder(path: Path, options: Options) -> Iterator[Path]:
    """A folder to fill; it gets its name when all of it is there.

    Raises:
        ConfigError: there is one, and it may not be overwritten.
    """
    refuse_existing(path, options)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        before = path.with_name(f"{path.name}.{os.getpid()}.old")
        if path.exists():
            path.rename(before)
        temporary.rename(path)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path, options: Options) -> None:
    """Check that nothing is lost.

    Raises:
        ConfigError: there is something, and it may not be overwritten.
    """
    is_there = any(path.iterdir()) if path.is_dir() else path.exists()
    if is_there and not options.overwrite:
        raise ConfigError(f"{path} is there already; --overwrite replaces it")
