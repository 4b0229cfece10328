"""A user's own image-text pairs: annotation files, or a folder of images with texts beside them."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.data.files.images import MAX_PIXELS, decode
from lavis_lite.data.files.rows import PackedRows, Rows
from lavis_lite.data.files.tables import foreign, read
from lavis_lite.errors import DataError, suggest

IMAGE_COLUMNS = ("image", "image_path", "file_name", "filename", "filepath", "path", "img")
TEXT_COLUMNS = ("caption", "text", "text_input", "sentence", "captions", "sentences", "title")
_LOOKED_AT = 20


class Annotations(Rows):
    """Image-text pairs from annotation files; a list of captions becomes a row for each.

    LAVIS's annotation files are read as they are: a list of {image, caption, image_id}.

    Args:
        path: the file, a URL, a glob pattern, or a list of them.
        images: the folder that relative image paths start from; by default that of the file.
        image: the column of the images; by default the first there is of image, image_path,
            file_name, filename, filepath, path, img. Its values are paths or an image's bytes.
        text: the column of the texts, of strings or lists of them; by default the first of
            caption, text, text_input, sentence, captions, sentences, title. `""`: no texts.
        key: the column of keys, made unique where they repeat; by default `key` where there is one,
            else rows are numbered.
        image_id: the column that says which rows show the same image; by default `image_id`
            where there is one, else the path of the image.
        split: keep the rows whose column `split` has this value, or one of a list of values.
        exif: turn images as their EXIF tag says (the originals ignore it).
        max_pixels: images larger than this are quarantined.
        limit, where, fold: a choice of the rows, see `Rows._choose`.

    Raises:
        DataError: missing files or columns, or nothing in them.
    """

    kind: str

    def __init__(
        self,
        path: str | list[str],
        images: str | None = None,
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
        self._read(read(path, self.kind), path, images, (image, text, key, image_id))
        self._finish(split, exif, max_pixels, limit, where, fold)

    def _read(
        self,
        rows: Iterator[dict[str, Any]],
        path: str | list[str],
        folder: str | None,
        columns: tuple[str | None, ...],
        name: str | None = None,
    ) -> None:
        first = path if isinstance(path, str) else path[0]
        self.name = name or Path(first).name.split(".")[0]
        self._folder = Path(folder if folder is not None else Path(first).parent)
        if folder is not None and not self._folder.is_dir():
            raise DataError(f"images: {folder}: no such folder")
        with foreign(first, "rows of image-text pairs"):
            self._rows = PackedRows(_expand(rows, str(path), self.name, columns))
        if not len(self._rows):
            raise DataError(f"{path}: there are no rows in it")
        self._check_images()

    def _finish(
        self,
        split: str | list[str] | None,
        exif: bool,
        max_pixels: int,
        limit: int | None,
        where: dict[str, Any] | None,
        fold: dict[str, Any] | None,
    ) -> None:
        self.decode = functools.partial(decode, exif=exif, max_pixels=max_pixels)
        self._choose(limit, {**(where or {}), **({"split": split} if split else {})}, fold)

    def _count(self) -> int:
        return len(self._rows)

    def _row(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        image = row["image"]
        if image and isinstance(image, str) and "://" not in image:
            row["image"] = os.path.join(self._folder, image)
        if row["image_id"] is None:
            # The whole path: 0001.jpg of another dataset is another image.
            row["image_id"] = row["image"] if image and isinstance(image, str) else row["key"]
        return row

    def _check_images(self) -> None:
        """A wrong folder is better known before training than after its first hundred rows."""
        found = [self._rows[number]["image"] for number in range(min(_LOOKED_AT, len(self._rows)))]
        paths = [os.path.join(self._folder, one) for one in found if isinstance(one, str) and one]
        if len(paths) == len(found) and not any(os.path.exists(path) for path in paths):
            raise DataError(
                f"{self.name}: none of the first {len(paths)} images is there, such as {paths[0]};"
                " relative paths start from the folder `images`"
            )


@registry.register("dataset", "json")
class Json(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    The file is a JSON list of objects, or has the layout of COCO's captions or of Karpathy's
    splits, whose `split` must be given (train, restval, val, test; the first two are what one
    trains on).
    """
    kind = "json"

    def _finish(self, split: Any, *others: Any) -> None:
        splits = Counter(str(self._rows[number].get("split")) for number in range(len(self._rows)))
        if not split and {"train", "test"} <= splits.keys():
            raise DataError(f"{self.name}: holds several splits; give split: one of {dict(splits)}")
        super()._finish(split, *others)


@registry.register("dataset", "jsonl")
class JsonLines(Annotations):
    __doc__ = Annotations.__doc__
    kind = "jsonl"


@registry.register("dataset", "csv")
class Csv(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    The file has a header; it is separated by tabs where its name or header says so.
    """
    kind = "csv"


@registry.register("dataset", "parquet")
class Parquet(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    Images inside the file (a column of bytes, or the hub's {{bytes, path}}) are kept in memory.
    """
    kind = "parquet"


def _expand(
    rows: Iterator[dict[str, Any]],
    where: str,
    name: str,
    columns: tuple[str | None, ...],
) -> Iterator[dict[str, Any]]:
    """Rows of files to rows of a dataset: fields renamed, one row per caption, keys unique."""
    image, text, key, image_id = columns
    number, keys = 0, Counter[str]()
    for place, row in enumerate(rows):
        if place == 0:
            image = _column("image", image, IMAGE_COLUMNS, row, where)
            text = text if text == "" else _column("text", text, TEXT_COLUMNS, row, where)
        for column in filter(None, (image, text, key, image_id)):
            if column not in row:
                raise DataError(
                    f"{where}: row {place} has no {column!r}.{suggest(column, row)}"
                    f" It has: {', '.join(row)}"
                )
        picture = _picture(row[str(image)])
        own, shared = row.get(key or "key"), row.get(image_id or "image_id")
        others = {name: value for name, value in row.items() if name not in (image, text)}
        for caption in _captions(row[text]) if text else [""]:
            unique = f"{name}-{number:07d}" if own is None else _unique(str(own), keys)
            yield {
                **others,
                "image": picture,
                "text_input": caption,
                "image_id": shared if shared is None or isinstance(shared, int) else str(shared),
                "key": unique,
            }
            number += 1


def _column(
    what: str, given: str | None, known: tuple[str, ...], row: dict[str, Any], where: str
) -> str:
    found = [column for column in ([given] if given else known) if column in row]
    if found:
        return found[0]
    wanted = repr(given) if given else f"column of the {what}s ({', '.join(known)})"
    raise DataError(
        f"{where}: no {wanted}.{suggest(given or what, row)} Columns: {', '.join(map(str, row))}."
        f" Name it with {what}:"
    )


def _picture(value: Any) -> Any:
    if isinstance(value, dict):  # as the hub stores images
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes) else "" if value is None else str(value)


def _captions(value: Any) -> list[str]:
    """Each caption of a row; none at all is an empty one, so that no row is lost in silence."""
    if isinstance(value, list | tuple):
        return [caption for one in value for caption in _captions(one)] or [""]
    if isinstance(value, dict):
        value = next((value[name] for name in ("raw", *TEXT_COLUMNS) if name in value), None)
    return ["" if value is None else str(value)]


def _unique(key: str, seen: Counter[str]) -> str:
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"
