"""Single values of strangers' tables: ids, and cells that hold nothing."""

from __future__ import annotations

import math
import re

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})")


def row_id(value: object) -> int | str:
    """Return an id in its one form: an int where it says a whole number, else a text.

    7, 7.0 and "7" are one id. "007" stays a text: files that write zeros mean them.
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value)
    return int(text) if _NUMBER.fullmatch(text) and text != "-0" else text


def is_nothing(value: object) -> bool:
    """Tell whether a cell is empty; tables write that as a number that is none, too."""
    return value is None or (isinstance(value, float) and math.isnan(value))
