"""A folder of images with their texts beside them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Unpack

from lavis_lite import registry
from lavis_lite.data.files.annotations import TEXT_COLUMNS, Annotations, Expansion
from lavis_lite.data.files.bad_rows import BadRow, PlacedRow
from lavis_lite.data.files.encodings import open_text, read_text
from lavis_lite.data.files.image_files import list_images, names_and_rest
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.files.rows import FileOptions, PackedRows
from lavis_lite.data.files.tables import Row, find, foreign, read
from lavis_lite.errors import DataError, suggest
from lavis_lite.io.paths import here

logger = logging.getLogger(__name__)
_CAPTION_FILES = [
    *("metadata.jsonl", "metadata.csv", "captions.jsonl", "captions.json", "captions.csv"),
    *("captions.tsv", "captions.txt"),
]
_TEXT_SUFFIXES = (".txt", ".caption")
_SIDE_COLUMNS = ("image", "caption", None, None)


@registry.register("dataset", "folder")
class Folder(Annotations):
    """Images of a folder and those below it, in the order of their paths.

    The text of `cat.jpg` is that of `cat.txt` or `cat.caption`, or the caption in `cat.json`,
    whose other fields travel along. Or one file in the folder has them all: metadata.jsonl or
    .csv, captions.jsonl, .json, .csv, or .txt (a name and a caption per line, with a tab between);
    one in a folder below speaks of the images from there on. An image that no such file lists has
    the text beside it; without one it is left out, with a count. Links to folders are followed;
    what begins with a dot is no data.

    Args:
        path: the folder.
        captions: the file with all the captions, when it has another name; `""`: don't look for
            one. An image without text has an empty one, which training refuses. A named file is
            the only one: what it does not list is left out.
        image, text, key, image_id: columns of that file, as for `json`.
        split, encoding, options: as for `json`.
        delimiter: as for `csv`.

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
        *,
        encoding: str | None = None,
        delimiter: str | None = None,
        **options: Unpack[FileOptions],
    ):
        path = here(path)
        if not os.path.isdir(path):
            parent = Path(path).parent
            beside = [one.name for one in parent.iterdir()] if parent.is_dir() else []
            raise DataError(f"{path}: no such folder.{suggest(Path(path).name, beside)}")
        self._folder, self.name = Path(path), Path(path).name
        self._encoding, self._delimiter = encoding, delimiter
        self._found = list_images(path)
        self.problems = self._found.problems(path)
        self._expand, tables = Expansion(self.name), self._tables(captions)
        with foreign(path, "rows of image-text pairs"):
            rows = self._all(tables, captions, (image, text, key, image_id))
            self._rows = PackedRows(self._without_bad(rows))
        self._mixes_ids = self._expand.mixes_ids
        self._never = dict(self._found.left_out)
        if not len(self._rows) and not tables:
            raise DataError(f"{path}: no images in it {names_and_rest(self._found)}")
        self._refuse_nothing(path)
        self._check_images()
        self._finish(split, **options)

    def _tables(self, captions: str | None) -> list[Path]:
        """The named file of captions; else the first of each folder that has images below it."""
        if captions is not None:
            return [find(str(self._folder / captions))[0]] if captions else []
        folders = {""}
        for image in self._found.paths:
            while image := os.path.dirname(image):
                folders.add(image)
        tables = []
        for below in sorted(folders):
            every = (self._folder / below / name for name in _CAPTION_FILES)
            here = [table for table in every if table.is_file()]
            tables += here[:1]
            self.problems += [f"{one}: not read, as {here[0].name} comes first" for one in here[1:]]
        return tables

    def _all(
        self, tables: list[Path], captions: str | None, columns: tuple[str | None, ...]
    ) -> Iterator[Row | BadRow]:
        """The rows of all tables, then those of images that none of them lists."""
        expand, listed, good = self._expand, set[str](), list[Path]()
        for table in tables:
            before = len(self.problems)
            below = os.path.relpath(table.parent, self._folder) if captions is None else "."
            for row in self._attempt(expand(self._table(table), str(table), columns), below):
                if isinstance(row, dict) and row["image"] and isinstance(row["image"], str):
                    if below != "." and "://" not in row["image"]:
                        row["image"] = os.path.join(below, row["image"])
                    at = os.path.join(self._folder, row["image"])
                    listed.add(os.path.relpath(at, self._folder))
                yield row
            if len(self.problems) == before:
                good.append(table)
        rest = [image for image in self._found.paths if image not in listed]
        if not good:
            yield from expand(self._beside_all(rest), str(self._folder), _SIDE_COLUMNS)
            return
        if captions is None:
            sides = {image: side for image in rest if _is_said(side := self._beside(image))}
            yield from expand(sides.values(), str(self._folder), _SIDE_COLUMNS)
            rest = [image for image in rest if image not in sides]
        if rest:
            self._found.left_out[f"not listed in {good[0].name}"] = len(rest)

    def _attempt(self, rows: Iterator[Row | BadRow], below: str) -> Iterator[Row | BadRow]:
        """The rows of a table; one in a folder below that is something else is a problem only."""
        try:
            yield from rows
        except DataError as error:
            if below == ".":
                raise
            self.problems.append(f"{error}; the file is not taken for captions")
            logger.warning("%s", self.problems[-1])

    def _table(self, path: Path) -> Iterator[Row | BadRow]:
        kind = path.suffix.removeprefix(".")
        if kind in ("json", "jsonl", "parquet"):
            return read(str(path), kind, encoding=self._encoding)
        with open_text(path, self._encoding) as file:
            first = file.readline()
        if kind == "txt" and "\t" in first:
            return _tabbed(path, self._encoding)
        return read(str(path), "csv", self._delimiter, self._encoding)

    def _beside_all(self, images: Iterable[str]) -> Iterator[Row | BadRow]:
        silent = total = 0
        for image in images:
            row = self._beside(image)
            total, silent = total + 1, silent + (isinstance(row, dict) and not row["caption"])
            yield row
        if 0 < silent < total:
            logger.warning(
                "%s: %d of %d images have no text beside them", self._folder, silent, total
            )

    def _beside(self, image: str) -> Row | BadRow:
        """Return the fields of the files beside an image; a damaged file sets the image aside."""
        path = self._folder / image
        row: Row = {}
        try:
            if (side := path.with_suffix(".json")).is_file():
                written = read_text(side, self._encoding)
                try:
                    row = parse_json(written)
                except ValueError as error:
                    raise DataError(f"damaged json: {side}: not a JSON object: {error}") from None
                if not isinstance(row, dict):
                    raise DataError(
                        f"damaged json: {side}: not a JSON object: a {type(row).__name__}"
                    )
            caption = next((row.pop(name) for name in TEXT_COLUMNS if name in row), "")
            for suffix in _TEXT_SUFFIXES:
                if (side := path.with_suffix(suffix)).is_file():
                    caption = read_text(side, self._encoding).strip()
        except DataError as error:
            return BadRow(str(error))
        except OSError as error:
            return BadRow(f"unreadable file: {side} ({error.strerror})")
        return {**row, "image": image, "caption": caption}


def _is_said(row: Row | BadRow) -> bool:
    return isinstance(row, BadRow) or bool(row["caption"])


def _tabbed(path: Path, encoding: str | None) -> Iterator[Row | BadRow]:
    """Lines of a name (Flickr8k adds #0, #1 ... to it), a tab and a caption, without a header."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, start=1):
            name, tab, caption = line.rstrip("\r\n").partition("\t")
            if not tab:
                if name.strip():
                    yield BadRow(
                        f"damaged row: {path}:{number}: no tab between name and caption:"
                        f" {line[:60]!r}"
                    )
                continue
            stem, mark, tail = name.rpartition("#")
            image = stem if mark and tail.isdigit() else name
            yield PlacedRow({"image": image, "caption": caption}, f"{path}:{number}")
