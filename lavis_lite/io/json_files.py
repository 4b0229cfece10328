"""Small JSON and text files, never seen half-written. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lavis_lite.io.files import whole_file


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def write_json(path: Path, value: object) -> None:
    """Write a small JSON file that is never seen half-written."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file that is never seen half-written.

    Names of files that are no UTF-8 are escaped, in JSON so that reading gives them back.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
