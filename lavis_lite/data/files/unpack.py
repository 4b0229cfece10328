"""Archives of published data unpacked: whole or not at all, and nowhere but into their folder."""

from __future__ import annotations

import contextlib
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lavis_lite.data.files.compressed import Meter, is_compressed, open_compressed
from lavis_lite.data.files.scratch import scratch_folder
from lavis_lite.data.files.tar_headers import DamagedHeader, members
from lavis_lite.data.files.tar_index import leads_out
from lavis_lite.errors import DataError
from lavis_lite.io import paths

_CHUNK = 1 << 20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # zipfile looks at the end: a tar may end with a small zip

# Name, kind as of tar_headers.Member, and what copies the bytes to a file.
_Member = tuple[str, str, Callable[[IO[bytes]], None]]


def unpack(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a zip or a tar (plain, gzip, bzip2, xz) into a folder; archives inside it stay packed.

    Everything is written below a folder of its own first, and named when all of it is there; what a
    process that was killed left of such a folder is removed.

    Args:
        archive: a path or URL.
        folder: made where it is missing.

    Returns:
        what it put into the folder, without what is below.

    Raises:
        DataError: not an archive, damaged, or cut; a member that leads out of the folder, is a
            link, a device or comes twice; a decompression bomb; or a name that is taken in the
            folder. Then nothing is left there.
        DownloadError: it could not be fetched.
    """
    path, target = Path(paths.local_path(archive)), Path(folder)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            reader = _zip_members if file.read(4) in _ZIP else _tar_members
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        try:
            target.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(scratch_folder(target, ".unpacking-"))
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror}") from None
        for member in reader(path):
            _write(path, temporary, *member)
        return _publish(path, temporary, target)


def _write(
    archive: Path, folder: Path, name: str, kind: str, copy: Callable[[IO[bytes]], None]
) -> None:
    """One member. The folder is new and gets no links, so that no path in it leads elsewhere."""
    if leads_out(name):
        raise DataError(f"{archive}: refused: {name!r} leads out of the folder")
    if kind not in ("file", "folder"):
        raise DataError(f"{archive}: refused: {name!r} is {kind}, where files are expected")
    path = folder.joinpath(*PurePosixPath(name).parts)
    try:
        if kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
            copy(file)
    except FileExistsError:
        raise DataError(f"{archive}: refused: {name!r} comes twice") from None
    except OSError as error:
        raise DataError(f"{archive}: {name!r} cannot be written: {error.strerror}") from None


def _publish(archive: Path, temporary: Path, target: Path) -> list[Path]:
    names = sorted(one.name for one in temporary.iterdir())
    if not names:
        raise DataError(f"{archive}: an empty archive")
    if taken := [name for name in names if os.path.lexists(target / name)]:
        raise DataError(f"{target / taken[0]}: is there already; remove it to unpack {archive}")
    return [(temporary / name).rename(target / name) for name in names]


# ------------------------------------------------------------------------------------- zip


def _zip_members(path: Path) -> Iterator[_Member]:
    with _zip_errors(path):
        archive = zipfile.ZipFile(path)
    with archive:
        every = archive.infolist()
        # What the headers say is enough to refuse; what comes out is counted all the same.
        Meter(path, path.stat().st_size).add(sum(member.file_size for member in every))
        meter = Meter(path, path.stat().st_size)
        for member in every:
            yield member.orig_filename, _zip_kind(member), _zip_copy(archive, member, meter)


_DAMAGES = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, UnicodeDecodeError),
    *(NotImplementedError, RuntimeError),
)


@contextlib.contextmanager
def _zip_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except _DAMAGES as error:
        raise DataError(f"{path}: is damaged, cut or encrypted: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path}: is damaged: {error}") from None  # so bz2 says it


def _zip_kind(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind in (0, stat.S_IFREG, stat.S_IFDIR):
        return "folder" if member.orig_filename.endswith("/") else "file"
    return "a link" if kind == stat.S_IFLNK else "a device"


def _zip_copy(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, meter: Meter
) -> Callable[[IO[bytes]], None]:
    def copy(target: IO[bytes]) -> None:
        with _zip_errors(meter.name), archive.open(member) as source:
            while data := source.read(_CHUNK):
                meter.add(len(data))
                target.write(data)

    return copy


# ------------------------------------------------------------------------------------- tar


def _tar_members(path: Path) -> Iterator[_Member]:
    with open_compressed(path) as file:
        stream: Any = _Forward(file) if is_compressed(path) else file
        try:
            for member in members(stream):
                yield member.name, member.kind, _tar_copy(path, stream, member.offset, member.size)
        except (DamagedHeader, EOFError) as error:
            raise DataError(f"{path}: not a zip or tar file, or a damaged one: {error}") from None


def _tar_copy(path: Path, stream: Any, offset: int, size: int) -> Callable[[IO[bytes]], None]:
    def copy(target: IO[bytes]) -> None:
        stream.seek(offset)
        left = size
        while left:
            data = stream.read(min(_CHUNK, left))
            if not data:
                raise DataError(f"{path}: ends in the middle of a file")
            target.write(data)
            left -= len(data)

    return copy


class _Forward:
    """A stream that can be read and skipped, not rewound."""

    def __init__(self, file: IO[bytes]):
        self._file, self._at = file, 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, to: int) -> None:
        while self._at < to and self.read(min(_CHUNK, to - self._at)):
            pass
