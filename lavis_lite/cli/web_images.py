"""One picture from a public web address, and from no other place that this machine can reach.

Only the commands on pictures call this, for URLs that stand on their command line; URLs in data are
never fetched. Behind a URL may stand a router, a cloud's metadata service or a database: a name is
resolved once, every address that it has must be public, and the connection goes to the very address
that was looked at, so that a name whose answer changes gains nothing. Imports no torch.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import lavis_lite
from lavis_lite.errors import DataError
from lavis_lite.io.paths import offline
from lavis_lite.io.redaction import redacted_urls

MAX_BYTES = 20_000_000
MAX_REDIRECTS = 3
SECONDS = 10.0  # for all of it, redirects included
AGENT = "lavis_lite"
_REDIRECTS = {301, 302, 303, 307, 308}
_UNWANTED = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
_IN_PATHS = "/?&=%:;,+@!$'()*~"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def fetch_image(url: str, seconds: float = SECONDS) -> bytes:
    """The bytes behind an http(s) URL, at most ``MAX_BYTES``.

    Args:
        url: of a picture; it is not checked that it is one.
        seconds: for all of it.

    Raises:
        DataError: refused or not to be had; the reason begins with what it is about.
    """
    if offline():
        raise DataError("not fetched: the network is switched off by the environment")
    deadline, here = time.monotonic() + seconds, url
    for _ in range(MAX_REDIRECTS + 1):
        site = _checked(here)
        with _answer(site, deadline) as response:
            if response.status not in _REDIRECTS:
                return _body(response)
            target = urljoin(here, response.headers.get("Location", ""))
        if site.scheme == "https" and urlsplit(target).scheme == "http":
            raise DataError(f"refused: redirects to {redacted_urls(target)}, which is not secure")
        here = target
    raise DataError(f"refused: more than {MAX_REDIRECTS} redirects")


def is_public(address: Address) -> bool:
    """Whether an address, and any that is written inside it, is of the public network."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if not all(is_public(one) for one in inner if one is not None):
            return False
        if address.ipv4_mapped:
            return True
    return address.is_global and not address.is_multicast


def _checked(url: str) -> SplitResult:
    try:
        site = urlsplit(url)
        port = site.port
    except ValueError as error:
        raise DataError(f"refused: no URL: {error}") from None
    if site.scheme not in ("http", "https") or not site.hostname or port == 0:
        raise DataError(f"refused: {redacted_urls(url)} is no http or https address of a picture")
    if site.username is not None or site.password is not None:
        raise DataError("refused: a URL with a password in it")
    return site


def _addresses(host: str, port: int, deadline: float) -> list[str]:
    """What a name stands for, when all of it is public.

    The system's resolver knows no time limit: it is asked in a thread that may be left behind.
    """
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([str(one[4][0]) for one in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        raise DataError(f"timeout: {host} is not resolved in time") from None
    if not isinstance(answer, list):
        raise DataError(f"not reachable: {host}: {getattr(answer, 'strerror', None) or answer}")
    for one in answer:
        if not is_public(ipaddress.ip_address(one.partition("%")[0])):
            named = f"{host} ({one})" if one != host else one
            raise DataError(f"refused: {named} is no public address; fetch it and give the file")
    return answer


class _Connection(http.client.HTTPConnection):
    """To an address that was looked at, in place of the name."""

    def __init__(self, site: SplitResult, address: str, deadline: float) -> None:
        self.secure = site.scheme == "https"
        port = site.port or (443 if self.secure else 80)
        super().__init__(site.hostname or "", port)
        self.default_port = 443 if self.secure else 80
        self.address, self.deadline = address, deadline

    def connect(self) -> None:
        left = max(0.001, self.deadline - time.monotonic())
        self.sock = socket.create_connection((self.address, self.port), timeout=left)
        if self.secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """End whatever is being waited for."""
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _answer(site: SplitResult, deadline: float) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, of which nothing but the head has been read."""
    addresses = _addresses(site.hostname or "", site.port or 0, deadline)
    connection = _Connection(site, addresses[0], deadline)
    # A timeout of the socket begins anew with every byte; this one doesn't.
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), connection.cut)
    timer.daemon = True
    timer.start()
    path = quote((site.path or "/") + (f"?{site.query}" if site.query else ""), safe=_IN_PATHS)
    headers = {"User-Agent": f"{AGENT}/{lavis_lite.__version__}", "Accept-Encoding": "identity"}
    try:
        connection.request("GET", path, headers={**headers, "Connection": "close"})
        yield connection.getresponse()
        if time.monotonic() >= deadline:  # what has been read may have been cut by us
            raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, DataError):
            raise
        if time.monotonic() >= deadline:
            raise DataError("timeout: it took longer than a picture may") from None
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"not reachable: {site.hostname}: {why}") from None
    finally:
        timer.cancel()
        connection.close()


def _body(response: http.client.HTTPResponse) -> bytes:
    if response.status != 200:
        raise DataError(f"not reachable: HTTP {response.status} {response.reason}")
    if wish := _unwanted(response.headers.get_all("X-Robots-Tag", [])):
        raise DataError(f"refused: the site asks not to use it so (X-Robots-Tag: {wish})")
    if (response.length or 0) > MAX_BYTES:
        raise DataError(f"too large: {response.length:,} bytes, the limit is {MAX_BYTES:,}")
    data = response.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise DataError(f"too large: more than {MAX_BYTES:,} bytes")
    if response.length:
        raise OSError(f"cut {response.length} bytes before the end")
    return data


def _unwanted(tags: list[str]) -> str | None:
    """The directive that forbids it to everybody or to us; those for other agents don't count."""
    for tag in tags:
        whom, colon, rest = tag.partition(":")
        agent = whom.strip().lower()
        names_one = colon and "," not in agent and agent not in _WITH_VALUES
        if names_one and agent not in (AGENT, "*"):
            continue
        for directive in (rest if names_one else tag).split(","):
            if directive.strip().lower() in _UNWANTED:
                return directive.strip()
    return None
