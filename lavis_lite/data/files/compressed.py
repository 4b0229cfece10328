"""Compressed files of strangers, read as streams that stop at a bomb."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import IO, Any

from lavis_lite.errors import DataError

MAX_RATIO = 100  # of honest text the best is about 20
MAX_BYTES = 1 << 40
FREE_BYTES = 16 << 20  # so little harms nobody, and small files may be all alike
_OPENERS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)


class Meter:
    """Counts what comes out of a compressed file.

    Args:
        name: of the file, for the message.
        packed: its size in bytes.
    """

    def __init__(self, name: str | Path, packed: int):
        self.name, self.packed, self.unpacked = str(name), packed, 0

    def add(self, num_bytes: int) -> None:
        """Note bytes that came out.

        Raises:
            DataError: more than `MAX_RATIO` times the packed bytes, or than `MAX_BYTES`.
        """
        self.unpacked += num_bytes
        ratio = self.unpacked > max(FREE_BYTES, MAX_RATIO * self.packed)
        if ratio or self.unpacked > MAX_BYTES:
            limit = f"{MAX_RATIO} times its size" if ratio else f"{MAX_BYTES:,} bytes"
            raise DataError(
                f"{self.name}: unpacks to more than {limit}, as a decompression bomb does;"
                " unpack it yourself where you trust it"
            )


def open_compressed(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where it is gzip, bzip2 or xz; one layer of it.

    Reading raises DataError where the file is damaged, cut or a bomb.
    """
    opener = _opener(path)
    if opener is None:
        return path.open("rb")
    return io.BufferedReader(_Metered(opener(path), Meter(path, path.stat().st_size)))


def _opener(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(6)
    return next((opener for sign, opener in _OPENERS if head.startswith(sign)), None)


class _Metered(io.RawIOBase):
    """The unpacked bytes of a file, counted, with its errors as ours."""

    def __init__(self, file: Any, meter: Meter):
        self._file, self._meter = file, meter

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read1(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{self._meter.name}: is damaged or cut: {error}") from None
        self._meter.add(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
