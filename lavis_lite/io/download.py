"""One remote file into the cache: whole, unaltered, once, and within bounded time.

A file lands in ``<first 16 hex digits of the URL's sha256>-<its name>``; beside it is a ``.json``
note with its digest, and, while it is fetched, a ``.part``. The locks between processes are in the
folder ``.locks``. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lavis_lite.errors import DownloadError
from lavis_lite.io.files import publish, sha256_of
from lavis_lite.io.http import Unreachable
from lavis_lite.io.redaction import REDACTED, redacted_urls
from lavis_lite.io.transfer import Limits, Partial, transfer

log = logging.getLogger(__name__)

LIMITS = Limits()
LOCKS = ".locks"

# Appends the rest of an address to a partial file and tells whether it was resumed; see `transfer`.
Receive = Callable[[str, Partial, Limits], bool]


def fetch(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    force: bool = False,
    offline: bool = False,
    limits: Limits | None = None,
    receive: Receive = transfer,
) -> str:
    """Return the local copy of ``url`` in ``folder``, fetched unless a good one is there.

    Args:
        sha256: the digest it must have; else the one recorded at the first download.
        force: fetch it anew.
        offline: only look into the folder; no socket is opened.
        limits: of time, tries and size.
        receive: how its bytes are had; by http(s) unless told otherwise.

    Raises:
        DownloadError: names the URL, the file, and what went wrong.
    """
    limits = limits or LIMITS
    url = url.split("#")[0]
    try:
        site = urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{url}: is not a URL: {error}") from error
    if "@" in site.netloc and site.scheme in ("http", "https"):
        raise DownloadError(f"{url.split('@')[-1]}: a URL with a password in it is not fetched")
    if f"={REDACTED}" in url:
        raise DownloadError(
            f"{url}: its signature was taken out when it was written down; give the whole URL, "
            "as key=value on the command line"
        )
    if sha256 is not None:
        sha256 = _digest(sha256)
    target = folder / cache_name(url)
    if not force and _is_cached(target, url, sha256):
        return str(target)
    if offline:
        raise DownloadError(
            f"{url}: is not in the cache and the network is switched off by the environment; "
            f"fetch it elsewhere and put it at {target}"
        )
    with _locked(target, limits):
        if force or not _is_cached(target, url, sha256):
            _download(url, target, sha256, limits, receive)
    return str(target)


def cache_name(url: str) -> str:
    """Return a file name that differs for every URL and cannot leave the folder."""
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".")[-80:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name or 'file'}"


def check(path: Path, sha256: str | None, note: Path | None = None) -> None:
    """Compare a file with its digest, or with the one in ``note``, which remembers the result.

    Raises:
        DownloadError: another digest; the message has both. The file stays.
    """
    try:
        if _matches(path, note, str(path), _digest(sha256) if sha256 else None):
            return
        got = sha256_of(path)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(f"{path}: {error.strerror or error}") from error
    expected = sha256 or _read_note(note).get("sha256")
    raise DownloadError(f"{path}: is damaged or another file: sha256 is {got}, wanted {expected}")


def _digest(sha256: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"{sha256!r} is not a sha256: it has 64 hex digits")
    return sha256.lower()


# --------------------------------------------------------------------- what is already there


def _is_cached(target: Path, url: str, sha256: str | None) -> bool:
    if not target.is_file():
        return False
    if _matches(target, _note_of(target), url, sha256):
        return True
    log.warning("%s: the copy in the cache is damaged or another file; fetching it anew", target)
    return False


def _matches(path: Path, note: Path | None, source: str, sha256: str | None) -> bool:
    """Tell whether the file has the expected digest; read it only if its size or time changed."""
    recorded = _read_note(note)
    status = path.stat()
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    fresh = {key: recorded.get(key) for key in stamp} == stamp and "sha256" in recorded
    digest = recorded["sha256"] if fresh else sha256_of(path)
    if digest != (sha256 or recorded.get("sha256", digest)):
        return False
    if not fresh and note is not None:
        _write_note(note, {"source": redacted_urls(source), "sha256": digest, **stamp})
    return True


def _note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _read_note(note: Path | None) -> dict[str, Any]:
    try:
        content = json.loads(note.read_text(encoding="utf-8")) if note else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_note(note: Path, content: dict[str, Any]) -> None:
    temporary = note.with_name(f"{note.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, note)
    except OSError as error:  # a cache that others own: the file is read again next time
        log.debug("cannot note the digest in %s: %s", note, error)


# -------------------------------------------------------------------------------- download


def _download(url: str, target: Path, sha256: str | None, limits: Limits, receive: Receive) -> None:
    partial = Partial(target.with_name(f"{target.name}.part"), verifiable=sha256 is not None)
    reason = ""
    for attempt in range(limits.tries):
        if attempt:
            log.warning("%s: %s; try %d of %d", url, reason, attempt + 1, limits.tries)
            time.sleep(limits.backoff * 2 ** (attempt - 1))
        try:
            resumed = receive(url, partial, limits)
            _accept(url, partial.path, target, sha256)
            return
        except Unreachable as error:
            reason = str(error)
        except _Altered as error:
            partial.discard()
            if not resumed:
                raise DownloadError(str(error)) from None
            reason = "the rest came from another version of the file"
        except DownloadError:
            raise
        except OSError as error:  # of our own disk: those of the network are Unreachable
            raise DownloadError(
                f"{url}: cannot write {partial.path}: {error.strerror or error}"
            ) from error
    raise DownloadError(
        f"{url}: could not be fetched in {limits.tries} tries: {reason}. "
        f"Starting again resumes it; or put the file at {target}"
    )


class _Altered(Exception):
    """All bytes arrived, with another digest than expected."""


def _accept(url: str, part: Path, target: Path, sha256: str | None) -> None:
    digest = sha256_of(part)
    if sha256 is not None and digest != sha256:
        raise _Altered(f"{url}: wanted sha256 {sha256}, got {digest}; the file was removed")
    status = part.stat()
    # The note first: without the file it says nothing, and the rename keeps the file's time.
    _write_note(
        _note_of(target),
        {
            "source": redacted_urls(url),
            "sha256": digest,
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
        },
    )
    publish(part, target)
    Partial(part).discard()


@contextlib.contextmanager
def _locked(target: Path, limits: Limits) -> Iterator[None]:
    """Admit one process at a time; the kernel drops the lock of a process that dies.

    Raises:
        DownloadError: another process has held it for ``limits.lock`` seconds.
    """
    from filelock import FileLock, Timeout

    path = target.parent / LOCKS / f"{target.name}.lock"
    lock = FileLock(path, timeout=limits.lock)
    try:
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    except Timeout:
        raise DownloadError(
            f"{target}: another process has held {path} for {limits.lock:.0f} s; stop that process"
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter: no locks on this file system
        raise DownloadError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield
    finally:
        lock.release()
