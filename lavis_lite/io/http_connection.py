"""Connections to http(s) servers that have limits of time, and go where they were sent."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from lavis_lite.errors import DownloadError


@functools.lru_cache(maxsize=8)
def opener(connect: float, read: float) -> urllib.request.OpenerDirector:
    """What opens http(s) addresses.

    Args:
        connect: seconds for a connection, including TLS.
        read: seconds without a byte, and for the whole head of an answer.
    """
    timed = functools.partial(_timed, connect, read)
    return urllib.request.build_opener(_Redirect(), _Http(timed), _Https(timed))


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Only to http(s), and never from https back to http."""

    def redirect_request(  # type: ignore[no-untyped-def]
        self, req: urllib.request.Request, fp, code, msg, headers, newurl: str
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise DownloadError(f"{req.full_url}: redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Timed:
    """One timeout to connect, another to read; mixed into a connection."""

    read_timeout = 0.0
    sock: socket.socket

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(self.read_timeout)

    def getresponse(self) -> http.client.HTTPResponse:
        with _deadline(self.sock, self.read_timeout):
            return super().getresponse()  # type: ignore[misc]


class _Connection(_Timed, http.client.HTTPConnection):
    pass


class _SecureConnection(_Timed, http.client.HTTPSConnection):
    pass


@contextlib.contextmanager
def _deadline(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Ends a connection whose headers drip: each byte would start a socket's timeout anew."""
    ended = threading.Event()
    timer = threading.Timer(seconds, _end, [connection, ended])
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if ended.is_set():
            raise TimeoutError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def _end(connection: socket.socket, ended: threading.Event) -> None:
    ended.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, timed: Callable[[type], Any]) -> None:
        super().__init__()
        self.timed = timed

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.timed(_Connection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, timed: Callable[[type], Any]) -> None:
        super().__init__()
        self.timed = timed
        self.context = ssl.create_default_context()

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self.timed(_SecureConnection), req, context=self.context)


def _timed(connect: float, read: float, kind: type) -> Any:
    def opened(host: str, timeout: float = 0, **options: Any) -> Any:
        connection = kind(host, timeout=connect, **options)
        connection.read_timeout = read
        return connection

    return opened
