"""A page of a dataset's pictures with their captions under them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from lavis_lite.data.files.images import decode

_PICTURE, _GAP = 208, 22
_PAPER, _INK, _WARNING = (255, 255, 255), (32, 34, 38), (200, 40, 40)
_TEXT_SIZE, _LINE_HEIGHT, _CHARACTERS, _MAX_LINES = 15, 19, 28, 8


def contact_sheet(dataset: Any, indices: Sequence[int], path: str, columns: int = 6) -> None:
    """Write a PNG of these rows: pictures enlarged, captions below, kinds of noise in red.

    Raises:
        DataError: when one of the rows cannot be read.
    """
    rows = [dataset[index] for index in indices]
    captions = [_wrap(row["text_input"]) for row in rows]
    labels = [row["noise"] if row.get("noise", "clean") != "clean" else "" for row in rows]
    lines = max(len(caption) + bool(label) for caption, label in zip(captions, labels, strict=True))
    columns = min(columns, len(rows))
    cell_width = _PICTURE + _GAP
    cell_height = _PICTURE + lines * _LINE_HEIGHT + _GAP
    size = (columns * cell_width + _GAP, -(-len(rows) // columns) * cell_height + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    for place, (row, caption, label) in enumerate(zip(rows, captions, labels, strict=True)):
        left = _GAP + place % columns * cell_width
        top = _GAP + place // columns * cell_height
        sheet.paste(_enlarged(decode(row["image"])), (left, top))
        _write(sheet, caption, label, left, top + _PICTURE + 6)
    sheet.save(path, optimize=True)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _CHARACTERS, max_lines=_MAX_LINES, placeholder=" ...")


def _enlarged(picture: Image.Image) -> Image.Image:
    scale = _PICTURE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _write(sheet: Image.Image, caption: list[str], label: str, left: int, top: int) -> None:
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_SIZE)
    for number, line in enumerate(caption):
        draw.text((left, top + number * _LINE_HEIGHT), line, _INK, font)
    if label:
        draw.text((left, top + len(caption) * _LINE_HEIGHT), f"({label})", _WARNING, font)
