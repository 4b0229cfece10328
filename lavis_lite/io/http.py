"""GET and POST requests over http(s), bounded in time, in size, and in where they may lead.

For an address that a stranger may have chosen, ``public_only`` holds: behind it may stand a router,
a cloud's metadata service or a database. A name is resolved once, every address that it has must be
public, and the connection goes to the very address that was looked at, so that neither a redirect
nor a name whose answer changes leads into a private network. Imports no torch.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

import lavis_lite
from lavis_lite.io.redaction import redacted_urls

if TYPE_CHECKING:
    import httpx2  # a tenth of a second to import

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(Exception):
    """A request or an answer that is refused; another try does not help."""


class TooLarge(Refused):
    """A body of more bytes than are allowed."""


class Unreachable(Exception):
    """A request that failed for a reason that may pass."""


class TimedOut(Unreachable):
    """A server, or the resolver of names, that did not answer in time."""


@contextlib.contextmanager
def get(
    url: str,
    connect: float,
    read: float,
    total: float,
    headers: Mapping[str, str] | None = None,
    public_only: bool = False,
    max_redirects: int = 10,
) -> Iterator[httpx2.Response]:
    """Yield the answer to a GET, of any status but a redirect, before its body is read.

    Errors of reading the body inside of the block are translated, too.

    Args:
        url: http or https, without a password. Redirects lead to such ones only, and not from
            https to http.
        connect: seconds for a connection, including TLS.
        read: seconds without a byte, and for the whole head of an answer.
        total: seconds for everything: names, redirects and the body.
        headers: additional headers; the body comes as it is stored, not compressed.
        public_only: connect to public addresses alone; proxies of the environment are not used.
        max_redirects: the most redirects to follow.

    Raises:
        Refused: the address, a redirect, or a certificate that is not trusted.
        Unreachable: no answer, or only a part of it; `TimedOut` where time was the reason.
    """
    deadline = time.monotonic() + total
    for _ in range(max_redirects + 1):
        with _answer(url, connect, read, deadline, headers or {}, public_only) as response:
            if not response.has_redirect_location:
                yield response
                return
            target = urljoin(url, response.headers["Location"])
        if urlsplit(url).scheme == "https" and urlsplit(target).scheme == "http":
            raise Refused(f"redirects to {redacted_urls(target)}, which is not secure")
        url = target
    raise Refused(f"more than {max_redirects} redirects")


@contextlib.contextmanager
def post(
    url: str,
    body: bytes,
    connect: float,
    read: float,
    total: float,
    headers: Mapping[str, str] | None = None,
) -> Iterator[httpx2.Response]:
    """Yield the answer to a POST, of any status but a redirect, before its body is read.

    Errors of reading the body inside of the block are translated, too.

    Args:
        url: http or https, without a password.
        body: of the request.
        connect: seconds for a connection, including TLS.
        read: seconds without a byte, and for the whole head of an answer.
        total: seconds for everything: names, redirects and the body.
        headers: additional headers, such as the kind of the body; secret ones go nowhere else.

    Raises:
        Refused: the address, a redirect, or a certificate that is not trusted.
        Unreachable: no answer, or only a part of it; `TimedOut` where time was the reason.
    """
    deadline = time.monotonic() + total
    with _answer(url, connect, read, deadline, headers or {}, False, body) as response:
        if response.has_redirect_location:  # where it leads may be none of the headers' business
            target = redacted_urls(urljoin(url, response.headers["Location"]))
            raise Refused(f"redirects to {target}; give that address if it is meant")
        yield response


def stated_length(response: httpx2.Response) -> int | None:
    """Return the length of a body that its head states; None if it states none."""
    length = response.headers.get("Content-Length")
    return None if length is None else int(length)


def read_body(response: httpx2.Response, max_bytes: int, offset: int = 0) -> Iterator[bytes]:
    """Yield the pieces of a body as they arrive.

    Args:
        response: of `get`, inside of its block.
        max_bytes: of the whole file.
        offset: of the body in the file.

    Raises:
        TooLarge: more than ``max_bytes``, by the head or in fact.
        Unreachable: the body ends before its stated length.
    """
    import httpx2

    length = stated_length(response)
    if offset + (length or 0) > max_bytes:
        raise TooLarge(f"is larger than the {max_bytes:,} bytes that are allowed")
    size = offset
    try:
        for piece in response.iter_raw():
            size += len(piece)
            if size > max_bytes:
                raise TooLarge(f"is larger than the {max_bytes:,} bytes that are allowed")
            yield piece
    except httpx2.RemoteProtocolError:
        whole = "" if length is None else f" of {offset + length}"
        raise Unreachable(f"cut after {size}{whole} bytes") from None


def is_public(address: Address) -> bool:
    """Tell whether an address, and any that is embedded in it, is public."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(one) for one in inner if one is not None):
            return False
        if address.ipv4_mapped:
            return True
    return address.is_global and not address.is_multicast


# --------------------------------------------------------------------------- one request


@contextlib.contextmanager
def _answer(
    url: str,
    connect: float,
    read: float,
    deadline: float,
    headers: Mapping[str, str],
    public_only: bool,
    body: bytes | None = None,
) -> Iterator[httpx2.Response]:
    """Yield the answer to a GET, or with a body to a POST."""
    import httpx2

    site = _checked(url)
    # What the system's resolver takes is decided by it: some forms of a number are no URL's host.
    public = _public_address(site, deadline) if public_only else None
    left = max(0.001, deadline - time.monotonic())
    timeout = httpx2.Timeout(min(read, left), connect=min(connect, left))
    watch = _Watch()
    extensions: dict[str, Any] = {"trace": watch.see}
    base_headers = {
        "User-Agent": f"lavis_lite/{lavis_lite.__version__}",
        "Accept-Encoding": "identity",
    }
    try:
        target = httpx2.URL(url)
        if public is not None:
            base_headers["Host"] = target.netloc.decode("ascii")
            extensions["sni_hostname"] = target.raw_host.decode("ascii")
            target = target.copy_with(host=public)
        # With a transport of its own it looks for no proxy.
        transport = httpx2.HTTPTransport() if public_only else None
        method, verify = ("GET", True) if body is None else ("POST", _certificates())
        with httpx2.Client(timeout=timeout, transport=transport, verify=verify) as client:
            request = client.build_request(
                method,
                target,
                content=body,
                headers={**base_headers, **headers},
                extensions=extensions,
            )
            watch.allow(min(read, left))
            with contextlib.closing(client.send(request, stream=True)) as response:
                watch.allow(deadline - time.monotonic())
                yield response
        if watch.ended:  # what seems the end of the body may be ours
            raise TimedOut("the server took too long")
    except httpx2.InvalidURL as error:
        raise Refused(f"is not a URL that can be fetched: {error}") from error
    except (httpx2.TransportError, Unreachable) as error:
        if watch.ended or isinstance(error, httpx2.TimeoutException):
            raise TimedOut("the server does not answer (timeout)") from error
        if isinstance(error, Unreachable):
            raise
        raise _translated(error) from error
    finally:
        watch.stop()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Those that are trusted, read once: requests to a server are many, and small."""
    import httpx2

    return httpx2.create_ssl_context()


def _checked(url: str) -> SplitResult:
    try:
        site = urlsplit(url)
        port = site.port
    except ValueError as error:
        raise Refused(f"no URL: {error}") from None
    if site.username is not None or site.password is not None:
        raise Refused("a URL with a password in it is not fetched")
    if site.scheme not in ("http", "https") or not site.hostname or port == 0:
        raise Refused(f"{redacted_urls(url)} is not an http or https address")
    return site


def _translated(error: Exception) -> Exception:
    """Return our error for a client's error, with the reason of the system's error behind it."""
    cause: BaseException = error
    while not isinstance(cause, OSError) and (inner := cause.__cause__ or cause.__context__):
        cause = inner
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(f"its certificate is not trusted: {cause.verify_message}")
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return Unreachable(reason)


def _public_address(site: SplitResult, deadline: float) -> str:
    """Resolve a site's name to an address, and refuse it unless all its addresses are public.

    The system's resolver has no time limit, so it runs in a thread that may be left behind.
    """
    host, port = site.hostname or "", site.port or 0
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([str(one[4][0]) for one in addresses])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise TimedOut(f"{host} is not resolved in time") from None
    if not isinstance(answer, list):
        raise Unreachable(getattr(answer, "strerror", None) or str(answer))
    for one in answer:
        if not is_public(ipaddress.ip_address(one.partition("%")[0])):
            named = f"{host} ({one})" if one != host else one
            raise Refused(f"{named} is not a public address; fetch it and give the file")
    return answer[0]


class _Watch:
    """A timer that ends a connection: a socket's own timeout starts anew with every byte."""

    def __init__(self) -> None:
        self.ended = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def see(self, event: str, info: Mapping[str, Any]) -> None:
        """Note the socket of a connection; the client calls this with all that it does."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self.ended:
                self._end()

    def allow(self, seconds: float) -> None:
        """Allow the connection this many more seconds."""
        self.stop()
        self._timer = threading.Timer(max(0.0, seconds), self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.ended = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # not that of TLS, which another thread is reading
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
