"""A local http server whose answers a test writes, and what runs in other processes against it.

    with Site(whole(BODY)) as site:
        get(site, folder)
    assert len(site.requests) == 1

An answer is a function ``(handler, number of this request, from 1)``.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lavis_lite.io import download
from lavis_lite.io.transfer import Limits

BODY = bytes(range(256)) * 400
SHA = hashlib.sha256(BODY).hexdigest()
# For servers that answer, however busy the machine is; and for those that never do.
PATIENT = Limits(connect=60, read=60, tries=3, backoff=0.01, lock=60)
QUICK = Limits(connect=1, read=0.4, tries=3, backoff=0.01, lock=1)

Answer = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    """Hands every GET and POST to the site's answer."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        site.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        with contextlib.suppress(ConnectionError):
            site.answer(self, len(site.requests))

    def do_POST(self) -> None:
        self.server.site.bodies.append(  # type: ignore[attr-defined]
            self.rfile.read(int(self.headers["Content-Length"]))
        )
        self.do_GET()

    def head(self, status: int, **headers: Any) -> None:
        """Status line and headers; ``content_length=5`` becomes ``Content-Length: 5``."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-").title(), str(value))
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing."""


class Site:
    """The server, in a thread; ``closing`` is set when the block ends."""

    def __init__(self, answer: Answer, host: str = "127.0.0.1") -> None:
        self.answer, self.host = answer, host
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []  # of POSTs
        self.closing = threading.Event()

    def __enter__(self) -> Site:
        self.server = ThreadingHTTPServer((self.host, 0), Handler)
        self.server.daemon_threads = True
        self.server.site = self  # type: ignore[attr-defined]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def url(self, path: str) -> str:
        return f"http://{self.host}:{self.port}/{path}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.server_port


def whole(body: bytes, *, etag: str | None = '"1"', cuts: tuple[int, ...] = ()) -> Answer:
    """The body with Range and If-Range; request n ends after ``cuts[n - 1]`` bytes of its own."""

    def answer(handler: Handler, number: int) -> None:
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if handler.headers.get("If-Range", etag) != etag:
            start = 0
        headers = {"content_length": len(body) - start} | ({"etag": etag} if etag else {})
        if start:
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            handler.head(206, content_range=span, **headers)
        else:
            handler.head(200, **headers)
        end = start + cuts[number - 1] if number <= len(cuts) else len(body)
        handler.wfile.write(body[start:end])

    return answer


def silent(handler: Handler, number: int) -> None:
    """Accepts the request and says nothing."""
    handler.server.site.closing.wait(20)  # type: ignore[attr-defined]


def get(site: Site, folder: Path, path: str = "w.pth", **options: Any) -> str:
    """Fetch a file of the site into the folder, with patience."""
    return download.fetch(site.url(path), folder, **({"limits": PATIENT} | options))


def fetch_in_process(url: str, folder: str, results: Any) -> None:
    """For another process: fetch and report the path or the error."""
    try:
        results.put(download.fetch(url, Path(folder)))
    except Exception as error:
        results.put(error)
