"""Chat completions over http: one request until it is answered well, or given up with a reason."""

from __future__ import annotations

import datetime
import email.utils
import json
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DownloadError
from lavis_lite.io import http
from lavis_lite.io.redaction import REDACTED, redacted_urls

log = logging.getLogger(__name__)
_MOST_BYTES = 1_000_000  # of an answer
_CONNECT = 10.0  # seconds for a connection
_LONGEST_WAIT = 120.0  # seconds between two tries, whatever the server asks for
_SHOWN = 100  # characters of a server's words in a reason
_HOPELESS = {401: "the key", 403: "the key", 404: "the address or the model"}
_AGAIN = {408, 409, 425, 429, *range(500, 600)}


class Failed(NamedTuple):
    """The reason why there is no answer, its kind before a colon.

    ``by_server``: the server is at fault, not what it was asked.
    """

    reason: str
    by_server: bool


class _Problem(Exception):
    """A try without a good answer; ``wait`` is what the server asks for, in seconds."""

    def __init__(
        self, reason: str, *, by_server: bool, again: bool = True, wait: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.by_server, self.again, self.wait = reason, by_server, again, wait


class Chat:
    """A client of one server, shared by threads.

    Args:
        url: of the server, up to and with ``/v1``, or with ``/chat/completions``.
        key_from: the environment variable with the key; None sends none.
        retries: how often a request is repeated.
        timeout: seconds for an answer.
        backoff: seconds before the first repetition.
        refusals: beginnings of answers that are refusals.

    Raises:
        ConfigError: the environment has no such variable.
    """

    def __init__(
        self,
        url: str,
        key_from: str | None,
        retries: int,
        timeout: float,
        backoff: float,
        refusals: tuple[str, ...],
    ) -> None:
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would note every request
        end = "/chat/completions"
        self.url = redacted_urls(url)
        self._address = url if url.rstrip("/").endswith(end) else url.rstrip("/") + end
        self._headers = {"Content-Type": "application/json"}
        self._secret = ""
        if key_from is not None:
            self._secret = os.environ.get(key_from, "").strip()
            if not self._secret:
                raise ConfigError(
                    f"endpoint.key_from: the environment has no {key_from}; set it where the run "
                    "is started (and on each machine of a cluster), or leave key_from out"
                )
            self._headers["Authorization"] = f"Bearer {self._secret}"
        self._retries, self._timeout, self._backoff = retries, timeout, backoff
        self._refusals = tuple(one.casefold() for one in refusals)

    def ask(self, body: Mapping[str, Any], seed: int, stop: threading.Event) -> str | Failed:
        """The server's text, or why there is none after all tries.

        Args:
            body: of the request, without its seed.
            seed: of the text; each repetition has another one, or a refusal would come again.
            stop: ends waiting.

        Raises:
            ConfigError: the server knows neither address, key nor model.
            DownloadError: there is no server.
        """
        tries = 0
        while True:
            drawn = stable_hash("try", seed, tries) % 2**31
            try:
                return self._try({**body, "seed": drawn})
            except _Problem as problem:
                tries += 1
                if tries > self._retries or not problem.again or stop.is_set():
                    return Failed(problem.reason, problem.by_server)
                wait = problem.wait
                if wait is None:
                    wait = self._backoff * 2 ** (tries - 1) * random.uniform(0.5, 1.0)
                log.debug("%s: %s; again in %.1f s", self.url, problem.reason, wait)
            except http.Unreachable as error:
                tries += 1
                if tries > self._retries or stop.is_set():
                    raise DownloadError(f"{self.url}: cannot be reached: {error}") from None
                wait = self._backoff * 2 ** (tries - 1)
            except http.Refused as error:
                raise ConfigError(f"endpoint.url: {self.url}: {error}") from None
            stop.wait(min(wait, _LONGEST_WAIT))

    def _try(self, body: Mapping[str, Any]) -> str:
        data = json.dumps(body).encode("utf-8")
        seconds = self._timeout
        started = False
        try:
            with http.post(
                self._address, data, min(_CONNECT, seconds), seconds, seconds, self._headers
            ) as response:
                started = True
                answer = b"".join(http.read_body(response, _MOST_BYTES))
                status, asked_for = response.status_code, response.headers.get("Retry-After")
        except http.TimedOut as error:
            raise _Problem(f"timeout: {error}", by_server=True) from None
        except http.TooLarge as error:
            raise _Problem(f"answer too large: it {error}", by_server=True) from None
        except http.Unreachable as error:
            if not started:
                raise
            raise _Problem(f"answer cut: {error}", by_server=True) from None
        if status != 200:
            raise self._refused(status, answer, asked_for)
        return self._text_of(answer)

    def _refused(self, status: int, answer: bytes, asked_for: str | None) -> Exception:
        words = self._shown(answer.decode("utf-8", "replace"))
        if status in _HOPELESS:
            return ConfigError(
                f"endpoint: {self.url} answers {status}: {words}. Is {_HOPELESS[status]} right?"
            )
        again = status in _AGAIN
        reason = f"status {status}: {words}"
        return _Problem(reason, by_server=again, again=again, wait=seconds_of(asked_for))

    def _text_of(self, answer: bytes) -> str:
        """The text of an answer that can be used."""
        try:
            tree = parse_json(answer)
        except ValueError:
            shown = self._shown(answer.decode("utf-8", "replace"))
            raise _Problem(f"answer is no JSON: {shown}", by_server=True) from None
        try:
            choice = tree["choices"][0]
            message = choice["message"]
            content = message["content"]
            refusal = message.get("refusal")
            if isinstance(content, list):
                content = "".join(part["text"] for part in content if part["type"] == "text")
            if not isinstance(content, str | None):
                raise TypeError
        except (LookupError, TypeError, AttributeError):
            shown = self._shown(json.dumps(tree))
            raise _Problem(f"answer is no chat completion: {shown}", by_server=True) from None
        text = " ".join((content or "").split())
        ended = choice.get("finish_reason")
        if refusal or ended == "content_filter" or text.casefold().startswith(self._refusals):
            said = self._shown(str(refusal or text or ended))
            raise _Problem(f"refusal: {said}", by_server=False)
        if not text:
            raise _Problem("empty answer", by_server=False)
        if ended == "length":
            raise _Problem(f"answer longer than max_tokens: {self._shown(text)}", by_server=False)
        return text

    def _shown(self, words: str) -> str:
        """The beginning of what a server said, on one line, without the key."""
        if self._secret:
            words = words.replace(self._secret, REDACTED)
        words = redacted_urls(" ".join(words.split()))
        return words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None without one."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, when.timestamp() - time.time())
