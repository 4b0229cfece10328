"""The server's rules of who may ask for what: hosts, tokens, origins, sizes and times."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 64 * 1024  # of a request's body
MOST_SECONDS = 30.0  # for a request and its response
_COOKIE = "lavis_lite_review"
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what does not come from the page itself, and what is too large or takes too long.

    A page of a stranger, open in the same browser, may send requests here: the `Host` header tells
    those that reached this machine by a name of the stranger's (DNS rebinding), `Origin` and
    `Sec-Fetch-Site` tell those that his page sent. Beyond the loopback a token is needed besides;
    it comes with the first address and stays as a cookie.

    Args:
        app: what is guarded.
        host: that the server listens on.
        token: of those who may come in; None where only this machine can.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        assert token or is_loopback(host)
        self._app, self._token = app, token
        self._names = {"localhost", host.lower()}
        if not is_loopback(host):
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return
        answered = _Answered(send)
        response = self._refusal(scope) or self._admission(scope)
        if response is not None:
            await response(scope, receive, answered)
            return
        limited = _Limited(receive)
        try:
            await asyncio.wait_for(self._app(scope, limited, answered), MOST_SECONDS)
        except TimeoutError:
            if not answered.begun:
                await _text(503, f"no answer within {MOST_SECONDS:g} s")(scope, receive, answered)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _text(403, f"no review is served as {host!r:.80}: open the address printed")
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != host
        by_a_site = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign or (by_a_site and scope["path"] != "/"):
            return _text(403, "requests of other pages are refused")
        if int(headers.get("content-length") or 0) > MOST_BYTES:
            return _text(413, f"at most {MOST_BYTES:,} bytes")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return self._token is not None or address.is_loopback  # a rebound name is no number

    def _admission(self, scope: Scope) -> Response | None:
        """Return None for who may come in, else a redirection with a cookie, or a refusal."""
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and _same(given, self._token):
            response = RedirectResponse("/", 303)
            response.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict")
            return response
        if _same(_cookie(Headers(scope=scope).get("cookie", "")), self._token):
            return None
        return _text(401, "a token is needed: open the address that was printed, with ?token=")


class _Limited:
    """A request's messages, up to the most bytes."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._bytes = receive, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._bytes += len(message.get("body", b""))
        if self._bytes > MOST_BYTES:
            raise HTTPException(413, f"at most {MOST_BYTES:,} bytes")
        return message


class _Answered:
    """A response's messages, with the headers that tell browsers what the page may do."""

    def __init__(self, send: Send) -> None:
        self._send, self.begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status)
