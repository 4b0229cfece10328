"""SNLI-VE: whether a photograph entails, contradicts or leaves open a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lavis_lite import registry
from lavis_lite.data.files.tables import read
from lavis_lite.data.published.base import Published, Row, demand
from lavis_lite.errors import DataError, suggest

CLASSES = ("contradiction", "neutral", "entailment")  # in LAVIS's order
# Of the published JSON lines, in place of image, sentence and label.
_PUBLISHED = {"Flickr30K_ID": "image", "sentence2": "sentence", "gold_label": "label"}


@registry.register("dataset", "snli_ve")
class SnliVe(Published, card="snli_ve"):
    """SNLI-VE: a photograph and a sentence; `label` 0 contradiction, 1 neutral, 2 entailment."""

    columns = ("image", "sentence", None, "image_id")
    class_names = CLASSES

    def rows_of(self, files: list[str]) -> Iterator[Row]:
        """Rows of ALBEF's and LAVIS's JSON lists, or of the published JSON lines."""
        for file in files:
            kind = "jsonl" if ".jsonl" in Path(file).suffixes else "json"
            for row in read(file, kind):
                if "Flickr30K_ID" in row:
                    demand(row, tuple(_PUBLISHED), file)
                    row = {ours: row[theirs] for theirs, ours in _PUBLISHED.items()}
                demand(row, ("image", "sentence", "label"), file)
                yield _entailment(row, file)


def _entailment(row: Row, file: str) -> Row:
    image, label = str(row["image"]), row["label"]
    if label not in CLASSES:
        raise DataError(
            f"{file}: label {label!r}.{suggest(label, CLASSES)} Known: {', '.join(CLASSES)}"
        )
    picture = image if image.endswith(".jpg") else f"{image}.jpg"
    return {
        "image": picture,
        "image_id": picture.removesuffix(".jpg"),
        "sentence": row["sentence"],
        "label": CLASSES.index(label),
    }
