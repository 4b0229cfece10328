"""JSON objects that hold image-text rows: COCO's captions, Karpathy's splits, name -> caption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.data.files.bad_rows import BadRow, each
from lavis_lite.data.files.cells import row_id
from lavis_lite.data.files.images import SUFFIXES
from lavis_lite.errors import DataError, listed

Row = dict[str, Any]


def rows_in(path: Path, data: Row) -> list[Any] | Iterator[Row | BadRow]:
    """Return the rows of a JSON object of a known layout, or the one list in it.

    Raises:
        DataError: it has none of these layouts.
    """
    pictures = data.get("images")
    if isinstance(pictures, list) and isinstance(data.get("annotations"), list):
        return _coco(path, pictures, data["annotations"])
    if isinstance(pictures, list) and any(_has_sentences(one) for one in pictures):
        return each(pictures, _karpathy)
    if data and any(Path(name).suffix.lower() in SUFFIXES for name in data):
        return (_named(path, name, value) for name, value in data.items())
    lists = [value for value in data.values() if isinstance(value, list)]
    if len(lists) != 1:
        raise DataError(
            f"{path}: an object with {listed(data)}; expected a list of rows, COCO's layout"
            " (images, annotations), Karpathy's (images with sentences), or image file -> caption"
        )
    return lists[0]


def _coco(path: Path, pictures: list[Any], annotations: list[Any]) -> Iterator[Row | BadRow]:
    """Yield a row for each image with its captions; then what belongs to no image, or to several.

    An id that is not one image's is nobody's: its captions would go to the wrong picture.
    """
    rows = list(each(pictures, lambda one: {**one, "id": row_id(one["id"])}))
    sound = [one for one in rows if not isinstance(one, BadRow)]
    files: dict[int | str, set[str]] = {}
    for picture in sound:
        files.setdefault(picture["id"], set()).add(str(picture.get("file_name")))
    captions: dict[int | str, list[Any]] = {one: [] for one in files}
    bad: list[BadRow] = []
    for annotation in annotations:
        try:
            number, caption = row_id(annotation["image_id"]), annotation["caption"]
        except (KeyError, TypeError) as error:
            bad.append(BadRow(f"damaged row: {path}: annotation {annotation!r:.100}: no {error}"))
            continue
        if len(files.get(number, ())) == 1:
            captions[number].append(caption)
        elif number in files:
            bad.append(
                BadRow(f"shared id: {path}: annotation {annotation!r:.100}: of several images")
            )
        else:
            bad.append(
                BadRow(f"no such image: {path}: annotation {annotation!r:.100}: no image {number}")
            )
    yield from each(rows, lambda one: _coco_row(path, one, files, captions))
    yield from bad


def _coco_row(
    path: Path, picture: Row, files: dict[int | str, set[str]], captions: dict[int | str, list[Any]]
) -> Row | BadRow:
    number = picture["id"]
    if len(same := files[number]) > 1:
        return BadRow(
            f"shared id: {path}: {len(same)} images have the id {number}: {listed(sorted(same))}"
        )
    return {
        "image": picture["file_name"],
        "caption": captions[number],
        "image_id": number,
        **({"domain": picture["domain"]} if "domain" in picture else {}),  # of NoCaps
    }


def _has_sentences(picture: object) -> bool:
    return isinstance(picture, dict) and "sentences" in picture


def _karpathy(row: Row) -> Row:
    folder = row.get("filepath")
    return {
        "image": f"{folder}/{row['filename']}" if folder else row["filename"],
        "caption": [sentence["raw"] for sentence in row["sentences"]],
        "image_id": row.get("cocoid", row.get("imgid", row["filename"])),
        "split": row.get("split", ""),
    }


def _named(path: Path, name: str, value: object) -> Row | BadRow:
    """Return a row of ``{"a.png": "caption"}``, also with a list of them or an object of fields."""
    if isinstance(value, dict):
        return {**value, "image": name}
    if value is None or isinstance(value, str | list):
        return {"image": name, "caption": value}
    return BadRow(f"damaged row: {path}: {name}: {value!r:.60}, where a caption is expected")
