"""The images of a shard as a tar in the webdataset layout, the same bytes whoever writes it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import IO

from lavis_lite.projects.blip.capfilt.records import Record, slots

_SIGNS = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"GIF8", "gif"), (b"BM", "bmp"))


class Spool:
    """Image files of a shard, on disk until it is known which samples keep a text."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}

    def put(self, index: int, data: bytes) -> None:
        """Keep the image of a row."""
        self._places[index] = (self._file.tell(), len(data))
        self._file.write(data)

    def get(self, index: int) -> bytes:
        """The image of a row."""
        start, size = self._places[index]
        self._file.seek(start)
        return self._file.read(size)


def write_tar(path: Path, records: list[Record], spool: Spool) -> None:
    """``000000012.jpg``, ``.json`` (the record) and ``.txt`` (its best kept text) per image.

    Named by row, as a key may hold dots and slashes; sorted, without times or owners. Images that
    keep no text are left out.
    """
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for record in sorted(records, key=lambda one: one["index"]):
            text = best_text(record)
            if text is None:
                continue
            image = spool.get(record["index"])
            stem = f"{record['index']:09d}"
            for extension, data in sorted(
                {
                    extension_of(image): image,
                    "json": json.dumps(record, ensure_ascii=False).encode(
                        "utf-8", "backslashreplace"
                    ),
                    "txt": text.encode("utf-8", "replace"),
                }.items()
            ):
                _add(tar, f"{stem}.{extension}", data)


def best_text(record: Record) -> str | None:
    """The kept text with the highest score, the first of equals; None where none is kept."""
    best: tuple[float, str] | None = None
    for slot in slots(record):
        if not slot.kept:
            continue
        score = slot.score if slot.score is not None else 0.0
        if best is None or score > best[0]:
            best = (score, slot.text)
    return best[1] if best else None


def extension_of(image: bytes) -> str:
    """Return the extension by a file's first bytes; ``jpg`` if unknown, which readers accept."""
    for sign, extension in _SIGNS:
        if image.startswith(sign):
            return extension
    return "webp" if image[8:12] == b"WEBP" else "jpg"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # time, user and group are 0, mode is 0644
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
