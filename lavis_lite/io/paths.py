"""Paths, URLs, ``hf://`` addresses and objects as local files, and their cache.

Every path that a user gives goes through `local_path`, `open` or `here`, and so through
`path_manager`: a handler of iopath that is registered there serves all of them. Imports no torch.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import NativePathHandler, PathHandler, PathManager

from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io import download, object_store
from lavis_lite.io.hub import hub_client, why_no_hub
from lavis_lite.io.hub import offline as offline
from lavis_lite.io.object_store import STORES

log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HUB = re.compile(
    r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<early>[^/]+))?/(?P<file>[^@]+)(?:@(?P<late>.+))?"
)
SCHEMES = ("http", "https", "hf", *STORES)


def local_path(address: str | os.PathLike[str], sha256: str | None = None) -> str:
    """Return the local file of a path, a URL, ``hf://owner/repo/file[@revision]`` or an object.

    A remote file is fetched once and kept in `cache_dir`; a path is returned as it is, with
    ``~`` expanded, whether or not it exists. Objects are those of stores that fsspec reads, such as
    ``s3://bucket/key`` and ``gs://bucket/key``.

    Args:
        address: where the file is.
        sha256: its hex digest. Without it the digest of the first download is recorded, and the
            file is compared with that afterwards.

    Raises:
        DownloadError: not fetched whole and unaltered, or offline and not in the cache.
    """
    return path_manager.get_local_path(os.fspath(address), sha256=sha256)


def open(address: str | os.PathLike[str], mode: str = "r", **options: Any) -> IO[Any]:
    """Open a file of any address that `local_path` takes; a remote file can only be read.

    Args:
        address: where the file is.
        mode: as of the built-in ``open``, like the options.

    Raises:
        DownloadError: not fetched whole and unaltered, or a remote one that is to be written.
        OSError: of a file on this machine.
    """
    return path_manager.open(os.fspath(address), mode, **options)


def is_remote(address: str | os.PathLike[str]) -> bool:
    """Tell whether an address has a scheme such as ``https://``, known or not, so is not a path."""
    return _SCHEME.match(os.fspath(address)) is not None


def here(address: str | os.PathLike[str]) -> str:
    """Return the path of a thing that must be local: a folder, code, or a file to write.

    Raises:
        ConfigError: a remote address, which would have to be fetched.
    """
    if is_remote(address):
        raise ConfigError(
            f"{os.fspath(address)}: a path on this machine is needed here; fetch or mount it, and "
            "give the path"
        )
    return local_path(address)


# --------------------------------------------------------------------------------- cache


def cache_dir() -> Path:
    """Return the writable folder of all fetched files.

    It is LAVIS_LITE_CACHE, else $XDG_CACHE_HOME/lavis_lite, else ~/.cache/lavis_lite; if that
    cannot be written, a folder in the system's temporary directory, with one warning.
    """
    folder = _preferred_cache()
    try:
        assert folder is not None
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, AssertionError) as error:  # not all of it: a name tried anew would warn anew
        return _temporary_cache(str(folder), getattr(error, "strerror", None) or "no home")


def _preferred_cache() -> Path | None:
    if chosen := os.environ.get("LAVIS_LITE_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # its specification: a relative one is to be ignored
        return Path(xdg) / "lavis_lite"
    home = os.path.expanduser("~")  # "~" itself for a user whom the system does not know
    known = os.environ.get("HOME", home) and os.path.isabs(home)
    return Path(home) / ".cache" / "lavis_lite" if known else None


@functools.cache
def _temporary_cache(preferred: str, reason: str) -> Path:
    path = Path(tempfile.gettempdir()) / f"lavis_lite-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        mine = status.st_uid == os.getuid() and not path.is_symlink() and path.is_dir()
    except OSError:
        mine = False
    if not mine or status.st_mode & 0o022:  # somebody else could put weights there
        path = Path(tempfile.mkdtemp(prefix="lavis_lite-"))
    log.warning(
        "cannot write the cache %s (%s); using %s. LAVIS_LITE_CACHE sets another folder",
        preferred,
        reason,
        path,
    )
    return path


# ------------------------------------------------------------------------------ handlers


class LocalHandler(NativePathHandler):
    """A handler of local files, with ``~``; it refuses schemes that no other handler knows."""

    def _get_local_path(
        self, path: str, force: bool = False, sha256: str | None = None, **kwargs: object
    ) -> str:
        self._check_kwargs(kwargs)
        path = self._expanded(path)
        if sha256 is not None:
            download.check(Path(path), sha256)
        return path

    def _get_path_with_cwd(self, path: str) -> str:
        return super()._get_path_with_cwd(self._expanded(path))

    def _expanded(self, path: str) -> str:
        if scheme := _SCHEME.match(path):
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise DownloadError(f"{path}: nothing here reads {scheme[0]}; known: {known}")
        return os.path.expanduser(path)


class _Remote(PathHandler):
    """A handler that reads remote files through a local copy; a subclass fetches it."""

    def _get_local_path(
        self, path: str, force: bool = False, sha256: str | None = None, **kwargs: object
    ) -> str:
        self._check_kwargs(kwargs)
        folder, preferred = cache_dir(), _preferred_cache()
        if preferred not in (folder, None) and not force:  # it may hold files and be read-only
            with contextlib.suppress(DownloadError, OSError):
                return self._fetch(path, preferred, sha256, force=False, only_look=True)
        return self._fetch(path, folder, sha256, force, only_look=offline())

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        raise NotImplementedError

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> io.IOBase | Any:
        if set(mode) & set("wax+"):
            raise DownloadError(f"{path}: a remote file can only be read, not opened as {mode!r}")
        return builtins.open(self._get_local_path(path), mode, buffering, **kwargs)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            self._get_local_path(path, **kwargs)
        except DownloadError:
            return False
        return True

    def _exists(self, path: str, **kwargs: object) -> bool:
        return self._isfile(path, **kwargs)

    def _isdir(self, path: str, **kwargs: object) -> bool:
        return False


class HTTPHandler(_Remote):
    """A handler of http(s) files by `download.fetch`; iopath's own handler is unsafe."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        return download.fetch(path, folder, sha256=sha256, force=force, offline=only_look)


class ObjectStoreHandler(_Remote):
    """A handler of objects in the stores that fsspec knows, by `object_store.receive`."""

    def _get_supported_prefixes(self) -> list[str]:
        return [f"{scheme}://" for scheme in STORES]

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        return download.fetch(
            path,
            folder,
            sha256=sha256,
            force=force,
            offline=only_look,
            receive=object_store.receive,
        )


class HubHandler(_Remote):
    """A handler of ``hf://owner/repo/file[@revision]`` by huggingface_hub, into our cache."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["hf://"]

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        match = _HUB.fullmatch(path)
        if match is None or ".." in match["file"].split("/"):
            raise DownloadError(f"{path}: write it as hf://owner/repo/file or .../file@revision")
        from huggingface_hub import hf_hub_download  # a second to import

        notes, folder = folder / "hub-notes", folder / "hub"
        try:
            with hub_client(only_look=only_look):
                local = hf_hub_download(
                    match["repo"],
                    match["file"],
                    revision=match["late"] or match["early"],
                    cache_dir=folder,
                    force_download=force and not only_look,
                    local_files_only=only_look,
                )
        except Exception as error:  # its errors are of many families: httpx, requests, its own
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            where = "offline and not in" if only_look else "could not be fetched into"
            reason = None if only_look else why_no_hub()
            raise DownloadError(f"{path}: {where} {folder}: {reason or first}") from error
        blob = Path(os.path.realpath(local))
        # The hub names a large file's copy by its sha256, and never looks at it again.
        named = blob.name if re.fullmatch("[0-9a-f]{64}", blob.name) else None
        with contextlib.suppress(OSError):  # read-only: the file is read again next time
            notes.mkdir(exist_ok=True)
        try:
            download.check(blob, sha256 or named, note=notes / f"{download.cache_name(path)}.json")
        except DownloadError as error:
            blob.unlink(missing_ok=True)
            raise DownloadError(f"{path}: {error}; removed, start again to fetch it") from error
        return local


path_manager = PathManager()
path_manager.set_logging(False)  # iopath would keep a record of each call
for handler in (LocalHandler(), HTTPHandler(), ObjectStoreHandler(), HubHandler()):
    path_manager.register_handler(handler)
