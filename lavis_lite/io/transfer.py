"""One request for (the rest of) a file: resumed if that is safe, refused if it is not whole."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lavis_lite.errors import DownloadError
from lavis_lite.io.http import Refused, TooLarge, Unreachable, get, read_body, stated_length

if TYPE_CHECKING:
    import httpx2

_SLOWEST = 1024  # bytes within the read timeout: a server that drips is as good as silent
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # worth another try


@dataclass(frozen=True)
class Limits:
    """Limits of time (seconds), tries and size (bytes).

    Attributes:
        connect: for a connection, including TLS.
        read: without (almost) any byte.
        total: for one try.
        tries: requests per file.
        backoff: before the second try; doubles.
        max_bytes: of a file.
        lock: to wait for another process that fetches the same file.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 8 * 3600.0
    tries: int = 3
    backoff: float = 1.0
    max_bytes: int = 64 << 30
    lock: float = 24 * 3600.0


@dataclass
class Partial:
    """The part of a file that was received so far, and the means to resume it.

    The server's ETag or date, kept in a file beside it for the next process, shows whether the file
    changed. Without them only this process resumes, or any process if the digest is known.
    """

    path: Path
    verifiable: bool = False
    started: bool = False
    facts: dict[str, Any] = field(default_factory=dict)  # "validator", "total"

    def __post_init__(self) -> None:
        try:
            facts = json.loads(self._facts_file.read_text(encoding="utf-8"))
            self.facts = facts if isinstance(facts, dict) else {}
        except (OSError, ValueError):
            self.facts = {}

    @property
    def _facts_file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def offset(self) -> int:
        """The byte from which to resume; 0 to start over."""
        safe = self.started or self.verifiable or self.facts.get("validator")
        return self.path.stat().st_size if safe and self.path.exists() else 0

    def note(self, validator: str | None, total: int | None) -> None:
        """Store the server's description of the file."""
        self.started = True
        self.facts = {"validator": validator, "total": total}
        self._facts_file.write_text(json.dumps(self.facts), encoding="utf-8")

    def discard(self) -> None:
        """Delete the partial file and its note."""
        self.facts = {}
        self.path.unlink(missing_ok=True)
        self._facts_file.unlink(missing_ok=True)


def transfer(url: str, partial: Partial, limits: Limits) -> bool:
    """Append the rest of ``url`` to the partial file; tell whether it was resumed.

    Raises:
        Unreachable: ended early, or the server has a passing problem; the next try may go on.
        DownloadError: it will not get better.
        OSError: our own disk.
    """
    offset = partial.offset()
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and partial.facts.get("validator"):
        headers["If-Range"] = partial.facts["validator"]
    try:
        with get(url, limits.connect, limits.read, limits.total, headers) as response:
            offset = _begin(url, response, partial, offset)
            body = read_body(response, limits.max_bytes, offset)
            _receive(url, body, partial, offset, stated_length(response), limits)
    except TooLarge as error:
        partial.discard()
        raise DownloadError(f"{url}: {error}") from None
    except Refused as error:
        raise DownloadError(f"{url}: {error}") from error
    with open(partial.path, "rb") as file:
        start = file.read(64).lstrip().lower()
    if not start or start.startswith((b"<!doctype html", b"<html")):
        partial.discard()
        what = "a web page" if start else "an empty file"
        raise DownloadError(f"{url}: the server sent {what}; the link may need a login")
    return offset > 0


def _begin(url: str, response: httpx2.Response, partial: Partial, asked: int) -> int:
    """Check the head of an answer; return the byte of the file at which its body begins."""
    status = f"HTTP {response.status_code} {response.reason_phrase}"
    if response.status_code == 416:  # our part is longer than the file: it has changed
        partial.discard()
        raise Unreachable("the server's file is shorter than what we have of it")
    if response.status_code in _PASSING:
        raise Unreachable(status)
    if not response.is_success:
        raise DownloadError(f"{url}: {status}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: the server sent a web page; the link may need a login")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise DownloadError(f"{url}: the server sent it {encoding}-encoded, which was not asked")
    offset = asked if response.status_code == 206 else 0
    if offset:
        span = re.fullmatch(
            rf"bytes {offset}-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip()
        )
        before = partial.facts.get("total")
        if span is None or (before and span[1] not in ("*", str(before))):
            partial.discard()
            raise Unreachable("the server answered with another part, or the file has changed")
    length = stated_length(response)
    if length is None and "Transfer-Encoding" not in response.headers and not partial.verifiable:
        raise DownloadError(
            f"{url}: the server does not say how long the file is, so that a cut would go "
            "unnoticed; give its sha256"
        )
    validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
    if validator is not None and validator.startswith("W/"):
        validator = None  # a weak one does not promise the same bytes
    partial.note(validator, None if length is None else offset + length)
    return offset


def _receive(
    url: str,
    body: Iterable[bytes],
    partial: Partial,
    offset: int,
    length: int | None,
    limits: Limits,
) -> None:
    from tqdm import tqdm

    received, mark = 0, time.monotonic()
    bar = tqdm(
        total=None if length is None else offset + length,
        initial=offset,
        desc=urlsplit(url).path.rsplit("/", 1)[-1],
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    )
    with bar, open(partial.path, "ab" if offset else "wb") as file:
        for piece in body:
            file.write(piece)
            bar.update(len(piece))
            received += len(piece)
            if (now := time.monotonic()) - mark > limits.read:
                if received < _SLOWEST:
                    raise Unreachable(f"only {received} bytes in {now - mark:.0f} s")
                received, mark = 0, now
