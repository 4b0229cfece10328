"""Images of records, decoded and encoded anew; nothing outside the run's sources is read."""

from __future__ import annotations

import functools
import io
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files import images
from lavis_lite.data.files.tar_index import index_shard
from lavis_lite.errors import ConfigError, DataError, UnknownName
from lavis_lite.io.paths import here
from lavis_lite.modules.interfaces import RowDataset
from lavis_lite.projects.blip.capfilt.layout import IMAGES, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.review.index import TextIndex

_LARGEST = 1024  # pixels of the longer side, as shown
_SMALL = 64  # images up to this size are shown pixel by pixel


class Pictures:
    """The image of each record, from the run's tars or the source.

    An image that the source names as a file has to lie, links followed, in a folder that the source
    is made of or that is allowed besides.

    Args:
        index: of the run.
        allowed: further folders.
    """

    def __init__(self, index: TextIndex, allowed: Iterable[str] = ()) -> None:
        self._index = index
        self._source: dict[str, Any] = index.records.job["source"]
        self._roots = [Path(here(folder)).resolve() for folder in allowed]
        self._roots += _folders(self._source)
        self._lock = threading.Lock()  # a dataset need not bear several threads

    def encoded(self, record: int) -> tuple[bytes, str]:
        """Return an image of at most 1024 pixels as a file, and its media type.

        Raises:
            DataError: it cannot be had, or lies outside the source's folders.
        """
        picture = self._decoded(record)
        picture.thumbnail((_LARGEST, _LARGEST))
        kind = "PNG" if max(picture.size) <= _SMALL else "JPEG"
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=90)
        return buffer.getvalue(), f"image/{kind.lower()}"

    def _decoded(self, record: int) -> Image.Image:
        row = int(self._index.record(record)["index"])
        if (data := self._from_tar(self._index.shard_of(record), row)) is not None:
            return images.decode(data)
        with self._lock:
            try:
                image = self._dataset[row]["image"]
            except LookupError as error:
                raise DataError(f"the source has no row {row}: {error}") from None
            if isinstance(image, list):  # a video
                image = image[0]
            if isinstance(image, str):
                image = self._inside(image)
            return getattr(self._dataset, "decode", images.decode)(image)

    def _inside(self, path: str) -> str:
        """Return the path, links followed, of an image of the source."""
        found = Path(path).resolve()
        if not any(found.is_relative_to(root) for root in self._roots):
            raise DataError(
                f"{path}: outside the folders of the run's source; start the review with "
                f"--images {found.parent} if it may be shown"
            )
        return str(found)

    def _from_tar(self, shard: int, row: int) -> bytes | None:
        members = self._members(shard)
        if (place := members.get(f"{row:09d}")) is None:
            return None
        with self._tar(shard).open("rb") as file:
            file.seek(place[0])
            return file.read(place[1])

    def _tar(self, shard: int) -> Path:
        return self._index.folder / SHARDS / f"{shard_name(shard)}{IMAGES}"

    @functools.lru_cache(maxsize=32)  # noqa: B019 the server has one of these
    def _members(self, shard: int) -> dict[str, tuple[int, int]]:
        """Offset and size of each image in the run's tar, by row; empty where there is none."""
        if not self._tar(shard).is_file():
            return {}
        return {
            key: place
            for key, members in index_shard(self._tar(shard)).samples
            for extension, place in members.items()
            if extension not in ("json", "txt")
        }

    @functools.cached_property
    def _dataset(self) -> RowDataset:
        try:
            return registry.build("dataset", self._source)
        except (UnknownName, ConfigError) as error:
            raise DataError(f"the run's source cannot be opened: {error}") from error


def _folders(source: object) -> Iterator[Path]:
    """The folders that a component's arguments name, and those of the files that they name."""
    if isinstance(source, dict):
        for name, value in source.items():
            if name != "name":
                yield from _folders(value)
    elif isinstance(source, list):
        for value in source:
            yield from _folders(value)
    elif isinstance(source, str) and source and "://" not in source:
        path = Path(here(source)).resolve()
        if path.is_dir():
            yield path
        elif path.is_file():
            yield path.parent
