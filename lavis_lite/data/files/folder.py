"""A folder of images with their texts beside them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.data.files.annotations import TEXT_COLUMNS, Annotations
from lavis_lite.data.files.images import MAX_PIXELS, SUFFIXES
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.files.tables import find, read
from lavis_lite.errors import DataError, suggest

logger = logging.getLogger(__name__)
_CAPTION_FILES = [
    *("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.json", "captions.csv"),
    *("captions.tsv", "captions.txt"),
]
_TEXT_SUFFIXES = (".txt", ".caption")


@registry.register("dataset", "folder")
class Folder(Annotations):
    """Images of a folder and those below it, in the order of their paths.

    The text of `cat.jpg` is that of `cat.txt` or `cat.caption`, or the caption in `cat.json`,
    whose other fields travel along. Or one file in the folder has them all: metadata.jsonl or
    .csv, captions.jsonl, .json, .csv, or .txt (a name and a caption per line, with a tab between).

    Args:
        path: the folder.
        captions: the file with all the captions, when it has another name; `""`: don't look for
            one. An image without text has an empty one, which training refuses.
        image, text, key, image_id: columns of that file, as for `json`.
        split, exif, max_pixels, limit, where, fold: as for `json`.

    Raises:
        DataError: no such folder, or no images in it.
    """

    def __init__(
        self,
        path: str,
        captions: str | None = None,
        image: str | None = None,
        text: str | None = None,
        key: str | None = None,
        image_id: str | None = None,
        split: str | list[str] | None = None,
        exif: bool = False,
        max_pixels: int = MAX_PIXELS,
        limit: int | None = None,
        where: dict[str, Any] | None = None,
        fold: dict[str, Any] | None = None,
    ):
        if not os.path.isdir(path):
            parent = Path(path).parent
            beside = [one.name for one in parent.iterdir()] if parent.is_dir() else []
            raise DataError(f"{path}: no such folder.{suggest(Path(path).name, beside)}")
        file = _captions_file(Path(path), captions)
        rows = _from_file(file) if file else _from_side_files(Path(path))
        self._read(rows, str(file or path), path, (image, text, key, image_id))
        self.name = Path(path).name
        self._finish(split, exif, max_pixels, limit, where, fold)


def _captions_file(folder: Path, name: str | None) -> Path | None:
    if name:
        return find(str(folder / name))[0]
    names = _CAPTION_FILES if name is None else []
    return next((folder / one for one in names if (folder / one).is_file()), None)


def _from_file(path: Path) -> Iterator[dict[str, Any]]:
    kind = path.suffix.removeprefix(".")
    if kind in ("json", "jsonl", "parquet"):
        return read(str(path), kind)
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    if kind != "txt" or "\t" not in first:
        return read(str(path), "csv")
    return _tabbed(path)


def _tabbed(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a name (Flickr8k adds #0, #1 ... to it), a tab and a caption, without a header."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            name, tab, caption = line.rstrip("\n").partition("\t")
            if not tab:
                raise DataError(f"{path}:{number}: no tab between name and caption: {line[:60]!r}")
            stem, mark, tail = name.rpartition("#")
            yield {"image": stem if mark and tail.isdigit() else name, "caption": caption}


def _from_side_files(folder: Path) -> Iterator[dict[str, Any]]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    silent = 0
    for file in files:
        row = _beside(file)
        silent += not row["caption"]
        yield {"image": str(file.relative_to(folder)), **row}
    if 0 < silent < len(files):
        logger.warning("%s: %d of %d images have no text beside them", folder, silent, len(files))
    if not files:
        raise DataError(f"{folder}: no images in it ({', '.join(sorted(SUFFIXES))})")


def _beside(image: Path) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if (side := image.with_suffix(".json")).is_file():
        try:
            row = parse_json(side.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise DataError(f"{side}: not a JSON object: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{side}: not a JSON object: a {type(row).__name__}")
    caption = next((row.pop(name) for name in TEXT_COLUMNS if name in row), "")
    for suffix in _TEXT_SUFFIXES:
        if (side := image.with_suffix(suffix)).is_file():
            caption = side.read_text(encoding="utf-8-sig", errors="replace").strip()
    row.pop("image", None)
    return {**row, "caption": caption}
