"""JSON of strangers: parsed to values that can be stored, printed and tokenized, or refused."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes of a file name


def parse_json(text: str | bytes, *, keep_bytes: bool = False) -> Any:
    """Parse a JSON text; half a surrogate pair, which is not a character, becomes U+FFFD.

    Args:
        text: a str, or bytes in UTF-8, -16 or -32.
        keep_bytes: leave the halves that stand for bytes of a file name that is no UTF-8, as
            `os.fsdecode` makes them; whoever takes texts from it must look for them.

    Raises:
        ValueError: it is not JSON, or nested so deeply that nothing could be done with it.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        value = json.loads(text)
        # An escape is the only way for one into a str that was decoded.
        broken = _NO_BYTE if keep_bytes else _SURROGATE
        return _whole(value, broken) if _ESCAPED_SURROGATE.search(text) else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(value: object, broken: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return broken.sub("\ufffd", value)
    if isinstance(value, list):
        return [_whole(one, broken) for one in value]
    if isinstance(value, dict):
        return {_whole(name, broken): _whole(one, broken) for name, one in value.items()}
    return value
