"""The hub's client, offline where we are or where the hub cannot be reached.

Without a network huggingface_hub and transformers repeat every request for half a minute, per file.
So one connection is tried first, and if that fails they are told to look only into their cache.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

_OFFLINE = ("LAVIS_LITE_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
CONNECT = 10.0  # seconds for the one connection
BELIEVED = 60.0  # seconds for which an outcome holds
_tried: dict[str, tuple[float, str | None]] = {}  # address -> when, and why it failed


def offline() -> bool:
    """Tell whether LAVIS_LITE_OFFLINE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set."""
    values = (os.environ.get(name, "").strip().lower() for name in _OFFLINE)
    return any(value in ("1", "true", "yes", "on") for value in values)


def why_no_hub() -> str | None:
    """Return the reason why nothing can be fetched from the hub; None if it can be asked.

    A proxy of the environment is trusted: through it, the hub's name need not be known here.
    """
    from huggingface_hub import constants

    if offline():
        return "the network is switched off by the environment"
    if constants.HF_HUB_OFFLINE:  # it was, when the client was imported
        return "the hub's client was started with HF_HUB_OFFLINE"
    site = urlsplit(constants.ENDPOINT)
    if {site.scheme, "all"} & set(getproxies()):
        return None
    when, failure = _tried.get(constants.ENDPOINT, (-BELIEVED, None))
    if time.monotonic() - when > BELIEVED:
        failure = _failure(site.hostname or "", site.port or {"http": 80}.get(site.scheme, 443))
        _tried[constants.ENDPOINT] = time.monotonic(), failure
    return failure and f"{constants.ENDPOINT} cannot be reached ({failure})"


def _failure(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=CONNECT).close()
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return None


@contextlib.contextmanager
def hub_client(source: str | None = None, only_look: bool = False) -> Iterator[None]:
    """Wrap calls of huggingface_hub and transformers, so that they are offline if we are.

    They only know their own variables, read them once on import, and ask the hub for lists of
    files even when told to use local files.

    Args:
        source: hub id, or a folder, for which no connection is tried.
        only_look: use what is in the cache, whether or not the hub could be asked.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    is_here = source is not None and Path(source).expanduser().exists()
    is_off = before or only_look or (offline() if is_here else why_no_hub() is not None)
    constants.HF_HUB_OFFLINE = is_off
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch_elsewhere(repo: str, instead: str = "the path of its folder in place of its name") -> str:
    """Return the advice of an error: the address of a hub repository, and the local cache.

    Args:
        repo: hub id.
        instead: what to give once it was fetched.
    """
    from huggingface_hub import constants

    return (
        f"not in the hub's cache {constants.HF_HUB_CACHE}, and {why_no_hub()}; fetch "
        f"https://huggingface.co/{repo} elsewhere and give {instead}"
    )
