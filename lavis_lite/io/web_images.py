"""One picture from a public web address, and from no other place that this machine can reach.

Only the commands on pictures and the pipelines call this, for URLs that their user gives; URLs in
data are never fetched. Imports no torch.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from lavis_lite.errors import DataError
from lavis_lite.io.http import (
    Refused,
    TimedOut,
    TooLarge,
    Unreachable,
    get,
    read_body,
)
from lavis_lite.io.hub import offline

MAX_BYTES = 20_000_000
MAX_REDIRECTS = 3
SECONDS = 10.0  # for all of it, redirects included
AGENT = "lavis_lite"
_UNWANTED = {"noai", "noimageai", "noindex", "noimageindex", "none"}
_WITH_VALUES = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


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
    times = (seconds, seconds, seconds)  # no step has a limit of its own
    try:
        with get(url, *times, public_only=True, max_redirects=MAX_REDIRECTS) as response:
            if response.status_code != 200:
                raise Unreachable(f"HTTP {response.status_code} {response.reason_phrase}")
            if wish := _unwanted(response.headers.get_list("X-Robots-Tag")):
                raise Refused(f"the site asks not to use it so (X-Robots-Tag: {wish})")
            return b"".join(read_body(response, MAX_BYTES))
    except TooLarge as error:
        raise DataError(f"too large: it {error}") from None
    except Refused as error:
        raise DataError(f"refused: {error}") from None
    except TimedOut as error:
        raise DataError(f"timeout: {error}") from None
    except Unreachable as error:
        raise DataError(f"not reachable: {urlsplit(url).hostname}: {error}") from None


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
