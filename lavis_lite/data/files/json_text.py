"""JSON of strangers: parsed to values that can be stored, printed and tokenized, or refused."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str | bytes) -> Any:
    """What a JSON text says; half a surrogate pair, which is no character, becomes U+FFFD.

    Args:
        text: a str, or bytes in UTF-8, -16 or -32.

    Raises:
        ValueError: it is not JSON, or nested so deeply that nothing could be done with it.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text)
        # An escape is the only way for one into a str that was decoded.
        return _whole(value) if _ESCAPED_SURROGATE.search(text) else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(one) for name, one in value.items()}
    return value
