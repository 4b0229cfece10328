"""Archives of published data unpacked: whole or not at all, and nowhere but into their folder.

The standard library reads and writes the members. What it would do in silence is refused here: it
takes a damaged header of a tar for its end, believes what a header says of sizes, replaces a member
that comes twice, and knows no decompression bombs.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from lavis_lite.data.files.compressed import Meter, open_compressed
from lavis_lite.data.files.scratch import scratch_folder
from lavis_lite.data.files.tar_index import leads_out
from lavis_lite.errors import DataError
from lavis_lite.io import paths

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # zipfile looks at the end: a tar may end with a small zip
_MAX_HEADER = 1 << 16  # bytes of a long name or a pax header: older tarfiles search it for long
_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"x", b"X", b"g")
_DAMAGES = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError, LookupError, ArithmeticError),
)


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
            extract = _extract_zip if file.read(4) in _ZIP else _extract_tar
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with contextlib.ExitStack() as stack:
        try:
            target.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(scratch_folder(target, ".unpacking-"))
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror}") from None
        with _damages(path):
            extract(path, temporary)
        return _publish(path, temporary, target)


@contextlib.contextmanager
def _damages(archive: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except _DAMAGES as error:
        raise DataError(f"{archive}: is damaged, cut or encrypted: {error}") from None
    except OSError as error:
        if error.errno is None:  # so bz2 says it
            raise DataError(f"{archive}: is damaged: {error}") from None
        raise DataError(
            f"{archive}: {error.filename or 'a file'} cannot be written: {error.strerror}"
        ) from None


def _check(archive: Path, folder: Path, name: str, kind: str) -> None:
    """Refuse a member. The folder is new and gets no links: no path in it leads elsewhere."""
    if leads_out(name):
        raise DataError(f"{archive}: refused: {name!r} leads out of the folder")
    if kind not in ("file", "folder"):
        raise DataError(f"{archive}: refused: {name!r} is {kind}, where files are expected")
    if os.path.lexists(folder / name) and not (kind == "folder" and (folder / name).is_dir()):
        raise DataError(f"{archive}: refused: {name!r} comes twice")


def _extract_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # It reads no more of a member than its header says; so what they say is enough to refuse.
        Meter(path, path.stat().st_size).add(sum(member.file_size for member in members))
        for member in members:
            _check(path, folder, member.orig_filename, _zip_kind(member))
            archive.extract(member, folder)


def _zip_kind(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind in (0, stat.S_IFREG, stat.S_IFDIR):
        return "folder" if member.orig_filename.endswith("/") else "file"
    return "a link" if kind == stat.S_IFLNK else "a device"


def _extract_tar(path: Path, folder: Path) -> None:
    with (
        open_compressed(path) as file,
        tarfile.open(fileobj=file, mode="r|", tarinfo=_Header, errors="replace") as archive,
    ):
        while (member := archive.next()) is not None:
            _check(path, folder, member.name, _tar_kind(member))
            archive.extract(member, folder, filter=_as_a_new_file)
            archive.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each


class _Header(tarfile.TarInfo):
    """A header that is refused where it cannot be one; tarfile would end there without a word."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)  # says that the archive ends here
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise EOFError(f"not a zip or tar file, or without its end: {error}") from None
        if header.size < 0 or (header.type in _HEADERS and header.size > _MAX_HEADER):
            raise EOFError(f"a header of {header.size:,} bytes")
        return header


def _tar_kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if member.isdev():
        return "a device"
    if member.type not in tarfile.SUPPORTED_TYPES or member.issparse() or member.size < 0:
        return "of an unknown kind"
    return "folder" if member.isdir() else "file"


def _as_a_new_file(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Return a member that the standard library has vetted, with a new file's rights and time."""
    return tarfile.data_filter(member.replace(mode=None, mtime=None), folder)  # type: ignore[arg-type]


def _publish(archive: Path, temporary: Path, target: Path) -> list[Path]:
    names = sorted(one.name for one in temporary.iterdir())
    if not names:
        raise DataError(f"{archive}: an empty archive")
    if taken := [name for name in names if os.path.lexists(target / name)]:
        raise DataError(f"{target / taken[0]}: is there already; remove it to unpack {archive}")
    return [(temporary / name).rename(target / name) for name in names]
