"""Text files of strangers as characters: UTF-8, UTF-16 and -32 with their marks, or as told."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lavis_lite.data.files.compressed import open_compressed
from lavis_lite.errors import ConfigError, DataError, suggest

_MARKS = (  # that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMON = ("utf-8", "cp1252", "latin-1", "utf-16-le", "utf-16-be", "gb18030", "shift_jis", "cp1251")
_BYTES = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are no UTF-8
ADVICE = (
    "bytes that are not UTF-8; if the file has another encoding, give it (encoding: cp1252, where"
    " the dataset takes that) or convert it (iconv -f cp1252 -t utf-8 OLD > NEW)"
)


@contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[IO[str]]:
    """Open a text file, unpacked where it is compressed, with its line ends as they are.

    Bytes that are not UTF-8 come as lone surrogates, as in Python's file names: names of files
    survive so, and ``has_bytes`` finds them in texts.

    Args:
        path: the file.
        encoding: by default UTF-8 with or without a mark, or UTF-16 or -32 with theirs.

    Raises:
        ConfigError: no such encoding.
        DataError: the file has another one, as far as can be told.
    """
    with open_compressed(path) as file:
        found = _encoding(file.peek(4)[:4], encoding, str(path))  # type: ignore[attr-defined]
        errors = "strict" if found.startswith(("utf-16", "utf-32")) else "surrogateescape"
        try:
            with io.TextIOWrapper(file, encoding=found, errors=errors, newline="") as text:
                yield text
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not {found}: {error.reason}") from None


def read_text(path: Path, encoding: str | None = None) -> str:
    """Return a whole text file; see ``open_text``.

    Raises:
        DataError: bytes that its encoding does not have, with the line of the first.
    """
    with open_text(path, encoding) as file:
        text = file.read()
    if found := _BYTES.search(text):
        line = 1 + text.count("\n", 0, found.start())
        raise DataError(f"damaged text: {path}:{line}: {ADVICE}")
    return text


def decode_text(data: bytes, where: str, encoding: str | None = None) -> str:
    """Return the characters of some bytes, as ``read_text`` does those of a file.

    Raises:
        DataError: bytes that the encoding does not have.
    """
    try:
        return data.decode(_encoding(data[:4], encoding, where))
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise DataError(f"damaged text: {where}, line {line}: {ADVICE}") from None


def has_bytes(text: str) -> bool:
    """Tell whether a text holds bytes that could not be decoded."""
    return bool(_BYTES.search(text))


def _encoding(head: bytes, given: str | None, where: str) -> str:
    if given:
        try:
            codecs.lookup(given)
        except LookupError:
            raise ConfigError(f"encoding: no {given!r}.{suggest(given, _COMMON)}") from None
        return "utf-8-sig" if given.lower() in ("utf-8", "utf8") else given
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    for zeros, name in ((head[1::2], "utf-16-le"), (head[::2], "utf-16-be")):
        if len(head) == 4 and not any(zeros) and any(head):
            raise DataError(
                f"damaged text: {where}: looks like UTF-16 without a mark at its beginning; give"
                f" encoding: {name}"
            )
    return "utf-8-sig"
