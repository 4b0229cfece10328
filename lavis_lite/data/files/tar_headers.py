"""The headers of a tar file, read without trust.

Python's tarfile takes a damaged header for the end of the archive, without a word; negative sizes
send it back to where it was, for ever; and it reads as much into memory as a header claims.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

BLOCK = 512
_MAX_NAME = 1 << 20  # bytes of a long name or of a pax header
_NAME, _LINK, _PAX, _PAX_OF_ALL = b"L", b"K", b"xX", b"g"
_REGULAR = b"\x0007"  # 7: contiguous, which nobody writes
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a device"}
_WITHOUT_BYTES = ("a link", "a device", "folder")  # whatever size is written there
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=\n]{1,300})=")


class DamagedHeader(ValueError):
    """A header that cannot be one."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: its path as written; bytes that are no UTF-8 are escaped as in file names.
        kind: `file`, `folder`, or another kind: `a link`, `a device`, `of an unknown kind`.
        offset: the position of its first byte.
        size: its length in bytes.
    """

    name: str
    kind: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The position of the next header."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


def members(file: IO[bytes]) -> Iterator[Member]:
    """The members of a ustar, GNU or pax archive, in order.

    Args:
        file: seekable, at least forwards. After each member it may be anywhere.

    Raises:
        DamagedHeader: a header is damaged, with its position; the members before it are good.
        EOFError: the file ends without the two empty blocks that end an archive.
    """
    at, name, size = 0, "", None
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise EOFError("has no end mark" if not header else "ends in the middle of a header")
        if not any(header):
            return
        member = _parse(header, at)
        kind = header[156:157]
        if kind in _PAX_OF_ALL or kind == _LINK:
            _extra(file, member)
        elif kind == _NAME:
            name = _text(_extra(file, member))
        elif kind in _PAX:
            found = _pax(_extra(file, member), at)
            name, size = found.get("path", name), found.get("size", size)
        else:
            has_bytes = member.kind not in _WITHOUT_BYTES
            own = member.size if size is None or not has_bytes else _number(size, at)
            member = Member(name or member.name, member.kind, member.offset, own)
            yield member
            name, size = "", None
        at = member.end


def _parse(header: bytes, at: int) -> Member:
    said = header[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", said) or not _is_sum(int(said, 8), header):
        raise DamagedHeader(f"has a damaged header at byte {at}")
    name = _text(header[:100])
    kind = header[156:157]
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = f"{prefix}/{name}"
    if kind in _REGULAR:
        old_folder = kind == b"\0" and name.endswith("/")
        known = "folder" if old_folder else "file"
    else:
        known = "folder" if kind == b"5" else _KINDS.get(kind, "of an unknown kind")
    size = 0 if known in _WITHOUT_BYTES else _size(header[124:136], at)
    return Member(name, known, at + BLOCK, size)


def _is_sum(said: int, header: bytes) -> bool:
    """Tell whether it is the sum of the header's bytes, signed or not, with a blank sum field."""
    plain = header[:148] + b" " * 8 + header[156:]
    total = sum(plain)
    return said == total or said == total - 256 * sum(byte > 127 for byte in plain)


def _size(written: bytes, at: int) -> int:
    if written[0] == 0x80:  # GNU's, for more than 8 GiB
        size = int.from_bytes(written[1:], "big")
    elif re.fullmatch(rb"[0-7]*", octal := written.strip(b" \0")):
        size = int(octal or b"0", 8)
    else:
        size = -1
    if not 0 <= size < 1 << 62:
        raise DamagedHeader(f"has a header without a sensible size at byte {at}")
    return size


def _number(text: str, at: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise DamagedHeader(f"has a header without a sensible size at byte {at}")
    return int(text)


def _extra(file: IO[bytes], member: Member) -> bytes:
    """The bytes of a header that says more about the next one."""
    if member.size > _MAX_NAME:
        raise DamagedHeader(f"has a header of {member.size:,} bytes at byte {member.offset}")
    data = file.read(member.size)
    if len(data) < member.size:
        raise EOFError("ends in the middle of a header")
    return data


def _pax(data: bytes, at: int) -> dict[str, str]:
    """The path and size that a pax header gives; of sparse files nothing is read."""
    fields: dict[str, str] = {}
    start = 0
    while start < len(data) and data[start] != 0:
        record = _PAX_RECORD.match(data, start)
        end = start + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(data) or data[end - 1] != 0x0A:
            raise DamagedHeader(f"has a damaged header at byte {at}")
        if record[2].startswith(b"GNU.sparse"):
            raise DamagedHeader(f"has a sparse file at byte {at}, which is not read")
        if record[2] in (b"path", b"size"):
            fields[record[2].decode()] = _text(data[record.end() : end - 1])
        start = end
    return fields


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
