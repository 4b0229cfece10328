"""Paths, URLs and ``hf://`` addresses as local files; where they are cached. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iopath.common.file_io import PathHandler, PathManager

from lavis_lite.errors import DownloadError
from lavis_lite.io import download

log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_HUB = re.compile(
    r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<early>[^/]+))?/(?P<file>[^@]+)(?:@(?P<late>.+))?"
)
_OFFLINE = ("LAVIS_LITE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def local_path(source: str | os.PathLike[str], sha256: str | None = None) -> str:
    """The local file of a path, an http(s) URL or ``hf://owner/repo/file[@revision]``.

    What is remote is fetched once and kept in `cache_dir`; a path is returned as it is, with
    ``~`` expanded, whether or not it exists.

    Args:
        source: where the file is.
        sha256: its hex digest. Without it the digest of the first download is recorded, and the
            file is compared with that afterwards.

    Raises:
        DownloadError: not fetched whole and unaltered, or offline and not in the cache.
    """
    source = os.fspath(source)
    scheme = _SCHEME.match(source)
    if scheme is None:
        path = os.path.expanduser(source)
        if sha256 is not None:
            download.check(Path(path), sha256)
        return path
    known = list(path_manager._path_handlers)  # iopath takes an unknown scheme for a file's name
    if not source.startswith(tuple(known)):
        raise DownloadError(f"{source}: nothing here reads {scheme[0]}; known: {', '.join(known)}")
    return path_manager.get_local_path(source, sha256=sha256)


def offline() -> bool:
    """Whether LAVIS_LITE_OFFLINE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network."""
    values = (os.environ.get(name, "").strip().lower() for name in _OFFLINE)
    return any(value in ("1", "true", "yes", "on") for value in values)


@contextlib.contextmanager
def hub_client() -> Iterator[None]:
    """Calls of huggingface_hub and transformers go in here: where we are offline, so are they.

    They know their own variables only, read them once when they are imported, and ask the hub for
    lists of theirs even where they are told to use local files.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch_elsewhere(repo: str) -> str:
    """For errors offline: where a hub repository is, and where it was looked for."""
    from huggingface_hub import constants

    return (
        f"not in the hub's cache {constants.HF_HUB_CACHE}, and the network is switched off by the"
        f" environment; fetch https://huggingface.co/{repo} elsewhere and give the path of its"
        " folder in place of its name"
    )


# --------------------------------------------------------------------------------- cache


def cache_dir() -> Path:
    """The writable folder of everything that is fetched.

    LAVIS_LITE_CACHE, else $XDG_CACHE_HOME/lavis_lite, else ~/.cache/lavis_lite; a folder of the
    system's temporary directory, with one warning, where that cannot be written.
    """
    wanted = _wanted_cache()
    try:
        assert wanted is not None
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except (OSError, AssertionError) as error:  # not all of it: a name tried anew would warn anew
        return _temporary_cache(str(wanted), getattr(error, "strerror", None) or "no home")


def _wanted_cache() -> Path | None:
    if chosen := os.environ.get("LAVIS_LITE_CACHE"):
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # its specification: a relative one is to be ignored
        return Path(xdg) / "lavis_lite"
    home = os.path.expanduser("~")  # "~" itself for a user whom the system does not know
    known = os.environ.get("HOME", home) and os.path.isabs(home)
    return Path(home) / ".cache" / "lavis_lite" if known else None


@functools.cache
def _temporary_cache(wanted: str, reason: str) -> Path:
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
        wanted,
        reason,
        path,
    )
    return path


# ------------------------------------------------------------------------------ handlers


class _Remote(PathHandler):
    """Reads remote files through a local copy; a subclass says how to fetch one."""

    def _get_local_path(
        self, path: str, force: bool = False, sha256: str | None = None, **kwargs: Any
    ) -> str:
        self._check_kwargs(kwargs)
        folder, wanted = cache_dir(), _wanted_cache()
        if wanted not in (folder, None) and not force:  # it may hold files and be read-only
            with contextlib.suppress(DownloadError, OSError):
                return self._fetch(path, wanted, sha256, force=False, only_look=True)
        return self._fetch(path, folder, sha256, force, only_look=offline())

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        raise NotImplementedError

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> io.IOBase | Any:
        self._check_kwargs(kwargs)
        if set(mode) & set("wax+"):
            raise DownloadError(f"{path}: a remote file can only be read, not opened as {mode!r}")
        return open(self._get_local_path(path), mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        try:
            self._get_local_path(path, **kwargs)
        except DownloadError:
            return False
        return True

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return self._isfile(path, **kwargs)

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        return False


class HTTPHandler(_Remote):
    """http(s) files by `download.fetch`; iopath's own handler is unsafe."""

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _fetch(
        self, path: str, folder: Path, sha256: str | None, force: bool, only_look: bool
    ) -> str:
        return download.fetch(path, folder, sha256=sha256, force=force, offline=only_look)


class HubHandler(_Remote):
    """``hf://owner/repo/file[@revision]`` by huggingface_hub, into our cache folder."""

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
            with hub_client():
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
            raise DownloadError(f"{path}: {where} {folder}: {first}") from error
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
path_manager.register_handler(HTTPHandler())
path_manager.register_handler(HubHandler())
