"""Files damaged at random: by bytes, and as one who knows their format would lie."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

TOKENS = [
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b"\\ud83d", b"\\u0000"),
    *(b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b"\t", b'"', b",", b"\n" * 50),
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"x" * 200_000, b"../" * 20, b"GNU.sparse."),
]
VALUES: list[Any] = [
    *(None, True, -1, 0, 2**63, 10**40, 1.5, float("inf"), "", " ", "\0", "\ud83d", "../../x"),
    *(
        "a" * 5000,
        "http://127.0.0.1/x.png",
        [],
        {},
        [[]],
        {"a": {}},
        [None],
        [1, "b"],
        b"".decode(),
    ),
    ["x"] * 50,
]
_SIZES = [
    b"\xff" * 12,
    b"77777777777\0",
    b"-0000000100\0",
    b"\x80" + b"\x7f" * 11,
    b"not a size\0\0",
]


def mutate(data: bytes, kind: str, rng: random.Random) -> bytes:
    """The bytes of a file with one to four faults.

    Args:
        data: of a good file.
        kind: `json`, `jsonl` and the head of `safetensors` are damaged by value, `tar` and `zip`
            by header, all by byte.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        knows = kind in _KNOWING and rng.random() < 0.5
        data = _KNOWING[kind](data, rng) if knows else rng.choice(_BLIND)(data, rng)
    return data


# ---------------------------------------------------------------------------------- by byte


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randint(0, len(data))]


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 8, 64, 512, 4096)))


def _remove(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def _splice(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    at = rng.randint(0, len(data))
    return data[:at] + data[start:end] + data[at:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + rng.choice((b"\x00", b"\xff", b" ", b"0")) * (end - start) + data[end:]


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at:]


_BLIND = (_flip, _cut, _remove, _splice, _overwrite, _insert)

# ------------------------------------------------------------------------------- by format


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _flip(data, rng)
    return json.dumps(_replaced(value, rng)).encode()


def _jsonl(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    lines[number] = _json(lines[number], rng)
    return b"\n".join(lines)


def _replaced(value: Any, rng: random.Random) -> Any:
    """A value with something somewhere in it exchanged, renamed or gone."""
    if not isinstance(value, list | dict) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    items = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    name = rng.choice(list(items))
    change = rng.random()
    if change < 0.7:
        items[name] = _replaced(items[name], rng)
    else:
        taken = items.pop(name)
        if change < 0.85:
            items[rng.choice(("image", "image0", "key", "text", "image_id", "\0"))] = taken
    return items if isinstance(value, dict) else list(items.values())


def _tar(data: bytes, rng: random.Random) -> bytes:
    """One header with another size, type, name or magic, and its checksum right again."""
    starts = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return _flip(data, rng)
    start, changed = rng.choice(starts), bytearray(data)
    field, value = rng.choice(
        [
            (124, rng.choice(_SIZES)),
            (124, b"%011o\0" % rng.choice((0, 1, 511, 513, 1 << 20, 1 << 32))),
            (156, bytes([rng.choice(b"\x00012345678LKxgXSVDMN")])),
            (0, rng.choice((b"../../x.png\0", b"/etc/x.png\0", b"\0", b"\xff" * 100, b"a\\b\0"))),
            (257, rng.choice((b"ustar  \0", b"\0" * 8, b"ustar\x0000"))),
            (345, rng.choice((b"..\0", b"p" * 155, b"\xff" * 155))),
        ]
    )
    changed[start + field : start + field + len(value)] = value
    changed[start + 148 : start + 156] = b" " * 8
    signed = rng.random() < 0.1
    layout = "512b" if signed else "512B"
    total = sum(struct.unpack(layout, changed[start : start + 512]))
    changed[start + 148 : start + 156] = b"%06o\0 " % max(0, total)
    return bytes(changed)


# Fields of a local and of a central header: offset and size.
_ZIP = {
    b"PK\x03\x04": [(6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)],
    b"PK\x01\x02": [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (38, 4), (42, 4)],
    b"PK\x05\x06": [(8, 2), (10, 2), (12, 4), (16, 4), (20, 2)],
}
_LIES = (0, 1, 8, 12, 14, 99, 0xA1FF0000, 1 << 20, (1 << 32) - 1)


def _zip(data: bytes, rng: random.Random) -> bytes:
    """One field of a header with another value, or a name that leads elsewhere."""
    places = [(at, sign) for sign in _ZIP for at in _found(data, sign)]
    if not places:
        return _flip(data, rng)
    (start, sign), changed = rng.choice(places), bytearray(data)
    if rng.random() < 0.3:
        start += {b"PK\x03\x04": 30, b"PK\x01\x02": 46}.get(sign, 22)
        name = rng.choice((b"../x", b"/tmp", b"a/..", b"\x00\xff\\x", b"con/"))
        changed[start : start + 4] = name[:4]
        return bytes(changed)
    offset, size = rng.choice(_ZIP[sign])
    value = rng.choice(_LIES) & ((1 << 8 * size) - 1)
    changed[start + offset : start + offset + size] = value.to_bytes(size, "little")
    return bytes(changed)


def _found(data: bytes, what: bytes) -> Iterator[int]:
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    """Another value in the head, whose length is right again or a lie."""
    end = 8 + int.from_bytes(data[:8], "little")
    head = _json(data[8:end], rng)
    length = len(head) if rng.random() < 0.8 else rng.choice(_LIES)
    return length.to_bytes(8, "little") + head + data[end:]


_KNOWING = {
    "json": _json,
    "jsonl": _jsonl,
    "tar": _tar,
    "zip": _zip,
    "safetensors": _safetensors,
}
