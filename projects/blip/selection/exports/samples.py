"""The images of a selection, one after the other, each with its chosen texts."""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.tar_index import index_shard
from lavis_lite.errors import DataError
from lavis_lite.io.redaction import REDACTED
from lavis_lite.projects.blip.capfilt.layout import IMAGES, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.reading import read_job
from lavis_lite.projects.blip.capfilt.tabulate import shard_records
from lavis_lite.projects.blip.capfilt.texts import texts as texts_of
from lavis_lite.projects.blip.selection.reading import Selection

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # others are written as PNG


@dataclass(frozen=True)
class Sample:
    """An image with the texts that were chosen for it.

    Attributes:
        key: of the sample; several shards may have the same.
        shard: of the run.
        record: of the run.
        texts: chosen ones, rows of the selection, in order.
        best: the one among them that comes first by score.
        web: the row of the web text as the run has it, chosen or not: ``text`` and ``scores``.
    """

    key: str
    shard: int
    record: dict[str, Any]
    texts: list[dict[str, Any]]
    best: dict[str, Any]
    web: dict[str, Any]


def samples(selection: Selection) -> Iterator[Sample]:
    """Yield the images that have a chosen text, in the order of the run.

    Raises:
        DataError: the run's records are not those that the selection was made of.
    """
    kind = read_job(selection.records).get("settings", {}).get("filter.score") or "itm"
    grouped = itertools.groupby(selection.rows(), lambda row: (row["shard"], row["index"]))
    by = selection.manifest["keep"]["by"] or next(iter(selection.scores), None)
    records: Iterator[dict[str, Any]] = iter(())
    current = None
    for (shard, index), rows in grouped:
        if shard != current:
            records, current = shard_records(selection.records, shard), shard
        record = next((r for r in records if r["index"] == index), None)
        chosen = list(rows)
        if record is None or record["key"] != chosen[0]["key"]:
            raise DataError(
                f"{selection.path}: {shard_name(shard)} of {selection.records} has no record of "
                f"{chosen[0]['key']!r} any more; select again"
            )
        web = texts_of(record, kind)[0]
        yield Sample(
            record["key"],
            shard,
            record,
            chosen,
            max(chosen, key=lambda row: score_of(row, by)),
            {"text": web.text, "scores": web.scores},
        )


def score_of(row: dict[str, Any], by: str | None) -> float:
    """Return a score of a text; minus infinity where it has none."""
    value = row.get(f"score_{by}")
    return float("-inf") if value is None else value


class ImageFiles:
    """The image files of a run: from its tar shards where it has some, else from its source."""

    def __init__(self, records: Path) -> None:
        self._records = records
        self._tar: tuple[int, dict[str, Any]] | None = None

    def read(self, sample: Sample) -> tuple[bytes, str]:
        """Return the bytes of an image, and the extension of its format.

        Raises:
            DataError: it cannot be read.
        """
        data = self._from_tar(sample)
        if data is None:
            path = sample.record["image"]
            image = path if path is not None else self._rows[sample.record["index"]]["image"]
            data = _bytes_of(image)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                found = opened.format or ""
                if found in _EXTENSIONS:
                    return data, _EXTENSIONS[found]
                return _png(opened), "png"
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{sample.key}: not an image: {error}") from None

    def _from_tar(self, sample: Sample) -> bytes | None:
        path = self._records / SHARDS / f"{shard_name(sample.shard)}{IMAGES}"
        if self._tar is None or self._tar[0] != sample.shard:
            index = dict(index_shard(path).samples) if path.is_file() else {}
            self._tar = sample.shard, index
        members = self._tar[1].get(f"{sample.record['index']:09d}")
        if not members:
            return None
        start, size = next(v for name, v in members.items() if name not in ("json", "txt"))
        with path.open("rb") as file:
            return os.pread(file.fileno(), size, start)

    @functools.cached_property
    def _rows(self) -> Any:
        source = read_job(self._records)["source"]
        if REDACTED in str(source):
            raise DataError(
                f"{self._records}: its source needs a secret that was taken out when it was "
                "written; run CapFilt with output.images=true, so that the images are at hand"
            )
        return registry.build("dataset", source)


def _bytes_of(image: bytes | str | Image.Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        return _png(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise DataError(f"{image}: cannot be read: {error.strerror}") from None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
