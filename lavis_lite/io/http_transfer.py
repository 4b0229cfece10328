"""One request for (the rest of) a file: resumed where safe, refused where it is not whole."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lavis_lite
from lavis_lite.errors import DownloadError
from lavis_lite.io.http_connection import opener

_CHUNK = 1 << 20
_SLOWEST = 1024  # bytes within the read timeout: a server that drips is as good as silent
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # worth another try


class Cut(Exception):
    """The transfer ended early; the next try may go on from there."""


@dataclass(frozen=True)
class Limits:
    """Seconds, tries and bytes.

    Attributes:
        connect: for a connection, including TLS.
        read: without (almost) any byte.
        tries: requests per file.
        backoff: before the second try; doubles.
        max_bytes: of a file.
        lock: without progress of another process that fetches the same file.
    """

    connect: float = 10.0
    read: float = 30.0
    tries: int = 3
    backoff: float = 1.0
    max_bytes: int = 64 << 30
    lock: float = 600.0


@dataclass
class Partial:
    """What has been received so far, and whether more may be appended to it.

    With the server's ETag or date (kept in a file beside it, for the next process) a changed file
    is noticed. Without, only this process goes on, or anybody if the digest is known in the end.
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
        """From which byte to go on; 0 to start over."""
        safe = self.started or self.verifiable or self.facts.get("validator")
        return self.path.stat().st_size if safe and self.path.exists() else 0

    def note(self, validator: str | None, total: int | None) -> None:
        """Remember what the server says about the file."""
        self.started = True
        self.facts = {"validator": validator, "total": total}
        self._facts_file.write_text(json.dumps(self.facts), encoding="utf-8")

    def discard(self) -> None:
        """Forget everything."""
        self.facts = {}
        self.path.unlink(missing_ok=True)
        self._facts_file.unlink(missing_ok=True)


def transfer(url: str, partial: Partial, limits: Limits) -> bool:
    """Append the rest of ``url`` to the partial file; whether it was resumed.

    Raises:
        Cut: ended early, or the server has a passing problem.
        DownloadError: it will not get better.
        OSError: our own disk.
    """
    offset = partial.offset()
    request = urllib.request.Request(url, headers=_headers(partial, offset))
    try:
        response = opener(limits.connect, limits.read).open(request)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # our part is longer than the file: it has changed
            partial.discard()
            raise Cut("the server's file is shorter than what we have of it") from error
        if error.code in _PASSING:
            raise Cut(f"HTTP {error.code} {error.reason}") from error
        raise DownloadError(f"{url}: HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _failure(url, error) from error
    with response:
        if response.status != 206:
            offset = 0
        length = _expected(url, response, partial, offset, limits)
        validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if validator is not None and validator.startswith("W/"):
            validator = None  # a weak one does not promise the same bytes
        partial.note(validator, None if length is None else offset + length)
        received = _receive(url, response, partial, offset, limits)
    if length is not None and received != length:
        raise Cut(f"cut after {offset + received} of {offset + length} bytes")
    return offset > 0


def _headers(partial: Partial, offset: int) -> dict[str, str]:
    headers = {"User-Agent": f"lavis_lite/{lavis_lite.__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if partial.facts.get("validator"):
            headers["If-Range"] = partial.facts["validator"]
    return headers


def _expected(
    url: str, response: http.client.HTTPResponse, partial: Partial, offset: int, limits: Limits
) -> int | None:
    """How many bytes must follow; None when only the end of a chunked body tells."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: the server sent a web page; the link may need a login")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise DownloadError(f"{url}: the server sent it {encoding}-encoded, which was not asked")
    if offset:
        pattern = rf"bytes {offset}-\d+/(\d+|\*)"
        span = re.fullmatch(pattern, response.headers.get("Content-Range", "").strip())
        before = partial.facts.get("total")
        if span is None or (before and span[1] not in ("*", str(before))):
            partial.discard()
            raise Cut("the server answered with another part, or the file has changed")
    length = response.length
    if length is None and not response.chunked and not partial.verifiable:
        raise DownloadError(
            f"{url}: the server does not say how long the file is, so that a cut would go "
            "unnoticed; give its sha256"
        )
    _check_size(url, offset + (length or 0), partial, limits)
    return length


def _receive(
    url: str, response: http.client.HTTPResponse, partial: Partial, offset: int, limits: Limits
) -> int:
    from tqdm import tqdm

    total = None if response.length is None else offset + response.length
    received = marked = 0
    mark = time.monotonic()
    name = urlsplit(url).path.rsplit("/", 1)[-1]
    bar = tqdm(
        total=total, initial=offset, desc=name, unit="B", unit_scale=True, disable=None, leave=False
    )
    with bar, open(partial.path, "ab" if offset else "wb") as file:
        while True:
            try:
                chunk = response.read1(_CHUNK)
            except (http.client.HTTPException, OSError, ValueError) as error:
                raise _failure(url, error) from error
            if not chunk:
                return received
            file.write(chunk)
            bar.update(len(chunk))
            received += len(chunk)
            _check_size(url, offset + received, partial, limits)
            if (now := time.monotonic()) - mark > limits.read:
                if received - marked < _SLOWEST:
                    raise Cut(f"only {received - marked} bytes in {now - mark:.0f} s")
                mark, marked = now, received


def _check_size(url: str, size: int, partial: Partial, limits: Limits) -> None:
    if size > limits.max_bytes:
        partial.discard()
        raise DownloadError(f"{url}: is larger than the {limits.max_bytes} bytes that are allowed")


def _failure(url: str, error: Exception) -> Exception:
    """Cut for what may pass, DownloadError for what will not."""
    if isinstance(error, DownloadError):
        return error
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return DownloadError(f"{url}: its certificate is not trusted: {cause.verify_message}")
    if isinstance(error, http.client.InvalidURL) or type(error) is ValueError:
        return DownloadError(f"{url}: is no URL that can be fetched: {error}")
    if isinstance(cause, TimeoutError):
        return Cut("the server does not answer (timeout)")
    return Cut(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)
