"""One http(s) file into the cache: whole, unaltered, once, and within bounded time.

A file lands in ``<first 16 hex digits of the URL's sha256>-<its name>``; beside it are a ``.json``
note with its digest, and, while it is fetched, a ``.part`` and a ``.lock``. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lavis_lite.errors import DownloadError
from lavis_lite.io.files import publish, sha256_of
from lavis_lite.io.http_transfer import Cut, Limits, Partial, transfer
from lavis_lite.io.redaction import REDACTED, redacted_urls

try:
    import fcntl
except ImportError:  # Windows: no lock between processes, the renames still keep files whole
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LIMITS = Limits()


def fetch(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    force: bool = False,
    offline: bool = False,
    limits: Limits | None = None,
) -> str:
    """The local copy of ``url`` in ``folder``, fetched unless a good one is there.

    Args:
        sha256: the digest it must have; else the one recorded at the first download.
        force: fetch it anew.
        offline: only look into the folder; no socket is opened.
        limits: of time, tries and size.

    Raises:
        DownloadError: names the URL, the file, and what went wrong.
    """
    limits = limits or LIMITS
    url = url.split("#")[0]
    try:
        site = urlsplit(url).netloc
    except ValueError as error:
        raise DownloadError(f"{url}: is no URL: {error}") from error
    if "@" in site:
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
            _download(url, target, sha256, limits)
    return str(target)


def cache_name(url: str) -> str:
    """A file name that differs for every URL and cannot leave the folder."""
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
    wanted = sha256 or _read_note(note).get("sha256")
    raise DownloadError(f"{path}: is damaged or another file: sha256 is {got}, wanted {wanted}")


def _digest(sha256: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f"{sha256!r} is no sha256: it has 64 hex digits")
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
    """Whether the file has the wanted digest; it is read only if its size or time changed."""
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


def _download(url: str, target: Path, sha256: str | None, limits: Limits) -> None:
    partial = Partial(target.with_name(f"{target.name}.part"), verifiable=sha256 is not None)
    reason = ""
    for attempt in range(limits.tries):
        if attempt:
            log.warning("%s: %s; try %d of %d", url, reason, attempt + 1, limits.tries)
            time.sleep(limits.backoff * 2 ** (attempt - 1))
        try:
            resumed = transfer(url, partial, limits)
            _accept(url, partial.path, target, sha256)
            return
        except Cut as error:
            reason = str(error)
        except _Altered as error:
            partial.discard()
            if not resumed:
                raise DownloadError(str(error)) from None
            reason = "the rest came from another version of the file"
        except DownloadError:
            raise
        except OSError as error:  # of our own disk: those of the network are Cut
            raise DownloadError(
                f"{url}: cannot write {partial.path}: {error.strerror or error}"
            ) from error
    raise DownloadError(
        f"{url}: could not be fetched in {limits.tries} tries: {reason}. "
        f"Starting again resumes it; or put the file at {target}"
    )


class _Altered(Exception):
    """The bytes are all there, and not the wanted ones."""


def _accept(url: str, part: Path, target: Path, sha256: str | None) -> None:
    with open(part, "rb") as file:
        start = file.read(64).lstrip().lower()
    if not start or start.startswith((b"<!doctype html", b"<html")):
        what = "a web page" if start else "an empty file"
        Partial(part).discard()
        raise DownloadError(f"{url}: the server sent {what}; the link may need a login")
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


@dataclass
class _Progress:
    """When the process that holds the lock last made its .part grow."""

    part: Path
    size: int = -1
    since: float = 0.0

    def idle(self) -> float:
        size = self.part.stat().st_size if self.part.exists() else 0
        if size != self.size:
            self.size, self.since = size, time.monotonic()
        return time.monotonic() - self.since


@contextlib.contextmanager
def _locked(target: Path, limits: Limits) -> Iterator[None]:
    """Only one process at a time; the kernel drops the lock of a process that dies.

    Raises:
        DownloadError: another process holds it and has received nothing for ``limits.lock`` s.
    """
    path = target.with_name(f"{target.name}.lock")
    progress = _Progress(target.with_name(f"{target.name}.part"))
    told = False
    while (handle := _try_lock(path)) is None:
        if progress.idle() > limits.lock:
            raise DownloadError(
                f"{target}: another process has held {path} for {limits.lock:.0f} s without "
                "receiving anything; stop that process, or delete the lock"
            )
        if not told:
            log.info("waiting for another process that fetches %s", target)
            told = True
        time.sleep(0.05)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    """A handle that holds the lock, or None while somebody else does."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DownloadError(f"{path}: {error.strerror}") from error
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last owner deletes the file: a lock on the deleted one excludes nobody.
        if os.fstat(handle).st_ino == os.stat(path).st_ino:
            return handle
    except BlockingIOError:
        pass
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s: this file system has no locks (%s)", path, error.strerror)
        return handle
    os.close(handle)
    return None
