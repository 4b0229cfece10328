"""Tokens of images on disk: each image's kept once, whole or not at all, shared by processes.

A store is a folder: `tokens.bin` has a place of equal size for every image, `index.sqlite` says
which image has which place, with a checksum of each crop once it is written, and `claims` is where
processes lock the places that they are about to fill. A place counts when its checksum is there,
which comes after its bytes are on the disk; a lock goes when its process does, however that ends.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lavis_lite.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows: one process at a time
    fcntl = None  # type: ignore[assignment]

VERSION = 1
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_SECONDS_TO_WAIT = 60  # for a process that writes to the index
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS images (place INTEGER PRIMARY KEY, image BLOB UNIQUE, checksums BLOB);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, image BLOB);
"""


class DamagedTokens(DataError):
    """Tokens on disk that are not what was written."""


class TokenStore:
    """The tokens of any number of images, several crops each.

    Args:
        folder: of the store; made if it is not there.
        about: what the tokens depend on, in words -> JSON values: encoder, processor, seed.
        shape: (N, D) of the tokens of one crop.
        crops: crops of each image, K.
        dtype: of the numbers on disk: fp16, bf16 or fp32.

    Raises:
        ConfigError: the folder has tokens of another kind, or of another version of this format.
        DamagedTokens: its index cannot be read, or the file of tokens is shorter than it says.
    """

    def __init__(
        self,
        folder: str | Path,
        about: Mapping[str, Any],
        *,
        shape: Sequence[int],
        crops: int,
        dtype: str,
    ) -> None:
        self.folder = Path(folder)
        self.shape, self.crops, self.dtype = tuple(shape), crops, dtype
        self.crop_bytes = math.prod(self.shape) * DTYPES[dtype].itemsize
        self._place_bytes = crops * self.crop_bytes
        self._checksums: dict[int, numpy.ndarray] = {}
        self._reading = self._locking = -1
        self.folder.mkdir(parents=True, exist_ok=True)
        self._open({**about, "shape": list(shape), "crops": crops, "dtype": dtype})

    @property
    def tokens_file(self) -> Path:
        """The file with the tokens of all images, one place after the other."""
        return self.folder / "tokens.bin"

    # ---- places

    def places(self, images: Iterable[bytes]) -> numpy.ndarray:
        """(R,) the place of each image, by its digest; an image that has none is given one."""
        images = list(images)
        with self._index() as index:
            index.execute("BEGIN IMMEDIATE")
            index.executemany(
                "INSERT OR IGNORE INTO images (image) VALUES (?)",
                ((one,) for one in dict.fromkeys(images)),
            )
            known = dict(index.execute("SELECT image, place FROM images"))
            index.execute("COMMIT")
        return numpy.array([known[image] - 1 for image in images], numpy.int64)

    def filled(self, places: Iterable[int]) -> set[int]:
        """Those of some places whose tokens are on disk."""
        query = "SELECT 1 FROM images WHERE place = ? AND checksums IS NOT NULL"
        with self._index() as index:
            return {place for place in places if index.execute(query, (place + 1,)).fetchone()}

    def claim(self, place: int) -> bool:
        """Lock a place until it is released or this process ends; False if another has it."""
        if fcntl is None:
            return True
        if self._locking < 0:
            self._locking = os.open(self.folder / "claims", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(self._locking, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise ConfigError(
                f"{self.folder}: on a file system without locks "
                f"({os.strerror(error.errno or 0)}); choose one that has them (local disks, NFS 4)"
            ) from None
        return True

    def release(self, place: int) -> None:
        """Unlock a place."""
        if fcntl is not None and self._locking >= 0:
            fcntl.lockf(self._locking, fcntl.LOCK_UN, 1, place)

    def release_all(self) -> None:
        """Unlock whatever this process has locked."""
        if fcntl is not None and self._locking >= 0:
            fcntl.lockf(self._locking, fcntl.LOCK_UN)

    def put(self, places: Sequence[int], tokens: Tensor) -> None:
        """Write the tokens (B, K, N, D) of B places; they count when this returns.

        Raises:
            ConfigError: a number that the dtype of the store cannot hold.
            OSError: no room on the disk.
        """
        assert tokens.shape == (len(places), self.crops, *self.shape), tokens.shape
        kept = tokens.detach().to("cpu", DTYPES[self.dtype]).contiguous()
        if not kept.isfinite().all():
            wider = "; use dtype: bf16 or fp32" if tokens.isfinite().all() else ""
            raise ConfigError(f"{self.folder}: tokens that are no finite {self.dtype}{wider}")
        rows = []
        handle = os.open(self.tokens_file, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for place, one in zip(places, kept, strict=True):
                crops = [_bytes_of(crop) for crop in one]
                _write(handle, b"".join(crops), place * self._place_bytes)
                checksums = numpy.array([zlib.crc32(crop) for crop in crops], "<u4")
                rows.append((checksums.tobytes(), place + 1))
            os.fsync(handle)
        finally:
            os.close(handle)
        with self._index() as index:
            index.execute("BEGIN IMMEDIATE")
            index.executemany("UPDATE images SET checksums = ? WHERE place = ?", rows)
            index.execute("COMMIT")

    # ---- reading

    def load(self, places: Iterable[int]) -> None:
        """Take the checksums of places into memory: ``read`` needs no index then, in any process.

        Raises:
            DamagedTokens: the file of tokens ends before one of them.
        """
        wanted = set(map(int, places))
        with self._index() as index:
            found = index.execute("SELECT place, checksums FROM images WHERE checksums NOT NULL")
            self._checksums |= {
                place - 1: numpy.frombuffer(checksums, "<u4")
                for place, checksums in found
                if place - 1 in wanted
            }
        if self._checksums and self._reading < 0:
            self._reading = os.open(self.tokens_file, os.O_RDONLY)

    def read(self, place: int, crop: int = 0) -> Tensor:
        """The tokens (N, D) of a crop, in the dtype of the store; ``load`` knows the place.

        Raises:
            DamagedTokens: the bytes are not those that were written.
        """
        start = place * self._place_bytes + crop * self.crop_bytes
        # By position: forked processes share the descriptor.
        data = bytearray(os.pread(self._reading, self.crop_bytes, start))
        expected = int(self._checksums[place][crop])
        if len(data) < self.crop_bytes or zlib.crc32(data) != expected:
            raise DamagedTokens(
                f"{self.tokens_file}: damaged at byte {start:,} (image {place}, crop {crop}): "
                f"checksum {expected:08x} was written, {zlib.crc32(data):08x} is now read. "
                + self._remedy()
            )
        return torch.frombuffer(data, dtype=DTYPES[self.dtype]).view(self.shape)

    # ---- image files whose digests are known

    def known_files(self) -> dict[str, tuple[int, int, bytes]]:
        """Path -> size, time of modification in ns and digest of files that were read before."""
        with self._index() as index:
            found = index.execute("SELECT path, size, mtime, image FROM files")
            return {path: (size, mtime, image) for path, size, mtime, image in found}

    def remember_files(self, files: Mapping[str, tuple[int, int, bytes]]) -> None:
        """Keep what ``known_files`` gives back."""
        rows = [(path, *values) for path, values in files.items()]
        with self._index() as index:
            index.execute("BEGIN IMMEDIATE")
            index.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            index.execute("COMMIT")

    # ---- room

    def cost(self, num_images: int) -> int:
        """Bytes on disk of a number of images."""
        return num_images * self._place_bytes

    def demand_room(self, num_images: int) -> None:
        """Refuse to begin what the disk has no room for.

        Raises:
            ConfigError: with both numbers.
        """
        free = shutil.disk_usage(self.folder).free
        if (needed := self.cost(num_images)) > free:
            raise ConfigError(
                f"{self.folder}: the tokens of {num_images:,} images need {in_units(needed)}, and "
                f"{in_units(free)} are free; choose another folder, a smaller dtype (fp16) or "
                "fewer crops"
            )

    # ---- the index

    def _open(self, about: Mapping[str, Any]) -> None:
        now = {name: json.dumps(value, sort_keys=True) for name, value in about.items()}
        with self._index() as index:
            (version,) = index.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise ConfigError(
                    f"{self.folder}: tokens in version {version} of the format; this release of "
                    f"lavis_lite reads version {VERSION}. " + self._remedy()
                )
            index.execute("BEGIN IMMEDIATE")
            for table in _TABLES.strip().splitlines():
                index.execute(table)
            index.execute(f"PRAGMA user_version = {VERSION}")
            before = dict(index.execute("SELECT name, value FROM about"))
            if not before:
                index.executemany("INSERT INTO about VALUES (?, ?)", now.items())
            index.execute("COMMIT")
            (last,) = index.execute(
                "SELECT max(place) FROM images WHERE checksums NOT NULL"
            ).fetchone()
        if before and (changed := _changes(before, now)):
            raise ConfigError(
                f"{self.folder}: holds tokens of another kind:\n  "
                + "\n  ".join(changed)
                + "\n"
                + self._remedy()
            )
        size = self.tokens_file.stat().st_size if self.tokens_file.exists() else 0
        if size < (last or 0) * self._place_bytes:
            raise DamagedTokens(
                f"{self.tokens_file}: damaged: {(last or 0) * self._place_bytes:,} bytes were "
                f"written, {size:,} are there now. " + self._remedy()
            )

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: a connection must not be carried into forked loader processes.
        path = self.folder / "index.sqlite"
        index = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
        try:
            yield index
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise
            raise DamagedTokens(f"{path}: damaged ({error}). " + self._remedy()) from None
        finally:
            index.close()

    def _remedy(self) -> str:
        return (
            "Use another data.vision_tokens.folder, or delete this one: its tokens are computed "
            "anew"
        )


def in_units(size: int) -> str:
    """A number of bytes as people say it."""
    powers = max(0, (size.bit_length() - 1) // 10)
    unit = ("bytes", "KiB", "MiB", "GiB", "TiB")[min(powers, 4)]
    return f"{size:,} {unit}" if not powers else f"{size / 1024 ** min(powers, 4):,.1f} {unit}"


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Lines such as ``crops: 4 was, 8 is now``."""
    names = [name for name in {**now, **before} if before.get(name) != now.get(name)]
    return [
        f"{name}: {before.get(name, 'nothing')} was, {now.get(name, 'nothing')} is now"
        for name in names
    ]


def _bytes_of(crop: Tensor) -> bytes:
    return crop.flatten().view(torch.uint8).numpy().tobytes()


def _write(handle: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(handle, view, start)
        view, start = view[written:], start + written
