"""A review that is served for a test, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.projects.blip.capfilt.review.app import Review, build_app
from lavis_lite.projects.blip.capfilt.review.command import bound
from lavis_lite.projects.blip.capfilt.review.guard import Guard
from lavis_lite.projects.blip.capfilt.review.index import TextIndex
from lavis_lite.projects.blip.capfilt.review.pictures import Pictures


class Served:
    """A server on a port of the loopback."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port, self.host = port, host

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, body (of JSON if it is some) and headers; a body makes it a POST."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        sent = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection.request("POST" if body is not None else "GET", path, body, sent)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        found = {name.lower(): value for name, value in response.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return response.status, json.loads(data) if is_json else data, found


@contextlib.contextmanager
def served_app(app: Any) -> Iterator[Served]:
    import uvicorn

    listening = bound("127.0.0.1", 0)
    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", http="h11")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextlib.contextmanager
def served(
    folder: Path, images: tuple[str, ...] = (), host: str = "127.0.0.1", token: str | None = None
) -> Iterator[Served]:
    """The review of a run."""
    index = TextIndex(folder)
    app = build_app(Review(index, Pictures(index, images), "anna"))
    with served_app(Guard(app, host, token)) as server:
        yield server
