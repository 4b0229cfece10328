"""`lavis-lite review FOLDER`: serve the review of a run until it is interrupted."""

from __future__ import annotations

import argparse
import errno
import getpass
import re
import secrets
import socket
import sys
from collections.abc import Sequence
from types import ModuleType

from lavis_lite.errors import ConfigError

_PORT = 7860
_LAST_PORT = 65535
_PORTS_TRIED = 100
_MOST_CONNECTIONS = 100
_LONGEST_HEADERS = 16 * 1024
_SECONDS_IDLE = 5


def main(words: Sequence[str]) -> int:
    """Parse the command line, and serve; returns the exit code."""
    arguments = _parser().parse_args(words)
    uvicorn = server_library()
    from lavis_lite.projects.blip.capfilt.labels import LABELS
    from lavis_lite.projects.blip.capfilt.review.app import Review, build_app
    from lavis_lite.projects.blip.capfilt.review.guard import Guard, is_loopback
    from lavis_lite.projects.blip.capfilt.review.index import TextIndex
    from lavis_lite.projects.blip.capfilt.review.pictures import Pictures
    from lavis_lite.registry.plugins import load_plugin

    for plugin in arguments.plugin:
        load_plugin(plugin)
    with bound(arguments.host, arguments.port) as listening:
        index = TextIndex(arguments.folder)
        review = Review(index, Pictures(index, arguments.images), arguments.labeller)
        token = None if is_loopback(arguments.host) else secrets.token_urlsafe(32)
        server = uvicorn.Server(
            uvicorn.Config(
                Guard(build_app(review), arguments.host, token),
                log_level="warning",
                lifespan="off",
                ws="none",
                http="h11",
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                h11_max_incomplete_event_size=_LONGEST_HEADERS,
                timeout_keep_alive=_SECONDS_IDLE,
            )
        )
        port = listening.getsockname()[1]
        try:
            sys.stdout.write(f"{address(arguments.host, port, token)}\n")
            sys.stdout.flush()
            server.run(sockets=[listening])
        except KeyboardInterrupt:
            sys.stderr.write(f"labels are in {index.folder / LABELS}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lavis-lite review",
        description="Judge texts of a CapFilt run in the browser and choose the cut by it.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="output folder of a finished run")
    parser.add_argument("--port", type=int, default=_PORT, help=f"0: any (default: {_PORT})")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; beyond this machine a token is needed (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--labeller", default=_user(), metavar="NAME", help="whose labels, as the page begins"
    )
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="FOLDER",
        help="show images from here too, where the source names files outside its folders",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="import this first, where the source is a dataset of your own",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    return parser


def server_library() -> ModuleType:
    """Import the server.

    Raises:
        ConfigError: it is not installed; names the extra.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f'a review needs a web server ({error}): pip install "lavis_lite[app]"'
        ) from None
    return uvicorn


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the port is in use, and names one that is free; or there is no such address.
    """
    if not 0 <= port <= _LAST_PORT:
        raise ConfigError(f"cannot listen on port {port}: 0 to {_LAST_PORT} is expected")
    try:
        return _listening(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"cannot listen on {host!r}, port {port}: {error}") from None
    for free in range(port + 1, min(port + _PORTS_TRIED, _LAST_PORT + 1)):
        try:
            _listening(host, free).close()
        except OSError:
            continue
        raise ConfigError(f"port {port} of {host} is in use; {free} is free: --port {free}")
    raise ConfigError(f"port {port} of {host} is in use; choose another one with --port")


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_MOST_CONNECTIONS)
    except BaseException:
        listening.close()
        raise
    return listening


def address(host: str, port: int, token: str | None) -> str:
    """Return the address to open, with the token if there is one."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def _user() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        name = ""
    return re.sub(r"[^\w.@-]+", "_", name).lstrip(".")[:64] or "me"
