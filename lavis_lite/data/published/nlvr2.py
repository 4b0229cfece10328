"""NLVR2: sentences about two photographs, true or false."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy

from lavis_lite import registry
from lavis_lite.data.files.bad_rows import BadRow, each
from lavis_lite.data.published.base import Published, Row, demand
from lavis_lite.errors import DataError

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}
_LABELS = {"True": True, "False": False, True: True, False: False}


def exchange(row: dict[str, Any], rng: numpy.random.Generator) -> dict[str, Any]:
    """Swap the two images of a training row, and the text's left and right, half of the time.

    The original BLIP does so too (data/nlvr_dataset.py), but in evaluation as well, which made
    its accuracy random.
    """
    if rng.random() < 0.5:
        return row
    text = _SIDE.sub(lambda word: _OTHER[word[0].lower()], row["text_input"])
    return {**row, "image0": row["image1"], "image1": row["image0"], "text_input": text}


@registry.register("dataset", "nlvr")
class Nlvr(Published, card="nlvr"):
    """NLVR2: two photographs (`image0`, `image1`) and a statement; `label` is 1 where it is true.

    In training the images come in either order, in evaluation always as published.
    """

    columns = ("image", "sentence", None, None)
    class_names = ("false", "true")
    augment = staticmethod(exchange)

    def rows_of(self, files: list[str]) -> Iterator[Row | BadRow]:
        """Rows with the left image as `image` and the right one as `other`."""
        for file, data in self._json(files):
            if not isinstance(data, list):
                raise DataError(f"{file}: a JSON {type(data).__name__}, where a list is expected")
            yield from each(data, functools.partial(_statement, file=file))

    def _row(self, number: int) -> Row:
        row = super()._row(number)
        left, right = row.pop("image"), os.path.join(self._folder, row.pop("other"))
        # Two images are no one image: each row is for itself.
        return {**row, "image0": left, "image1": right, "image_id": row["key"]}

    def _annotation(self, number: int) -> Row:
        row = self._row(number)
        return {name: value for name, value in row.items() if name not in ("image0", "image1")}


def _statement(row: Row, file: str) -> Row:
    demand(row, ("sentence", "label", "images"), file)
    if len(row["images"]) != 2 or not all(isinstance(x, str) for x in row["images"]):
        raise DataError(f"{file}: {row['images']!r:.80}; a statement is about two images")
    if row["label"] not in _LABELS:
        raise DataError(f"{file}: label {row['label']!r:.40}; known: {list(_LABELS)}")
    left, right = row["images"]
    label = int(_LABELS[row["label"]])
    return {"image": left, "other": right, "sentence": row["sentence"], "label": label}
