"""The images of datasets as places of a token store, known by what is in them.

An image is known by the content of its file, or by its pixels where the dataset draws it: a copy,
a file that moved and the five rows of five captions are the same image. The content of a file is
read when its path, size or time of modification are new to the store.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from lavis_lite.data.files import images
from lavis_lite.data.token_store import TokenStore
from lavis_lite.errors import ConfigError, DataError

IMAGE_NAME = re.compile(r"image\d*")


class Missing(NamedTuple):
    """An image whose tokens are to be computed: its place and digest, and a row that shows it."""

    place: int
    image: bytes
    dataset: int
    row: int
    name: str


class StoredImages:
    """The images of datasets, read as tokens from a store.

    Args:
        datasets: map-style datasets, see `Rows`.
        mark: makes of the tokens (N, D) of an image what a sample has in the image's place.

    Attributes:
        crops: crops of each image; 1 until there is a store.
        unreadable: places whose image could not be read -> why.
    """

    def __init__(self, datasets: Sequence[Any], mark: Callable[[Tensor], Tensor]) -> None:
        self.datasets = list(datasets)
        self._mark = mark
        self.crops = 1
        self.unreadable: dict[int, str] = {}
        self._store: TokenStore | None = None
        self._rows: list[dict[str, numpy.ndarray]] = []  # image's name -> (R,) places; -1: none
        self._bad_rows: list[dict[int, str]] = []

    def find(self, store: TokenStore) -> list[Missing]:
        """Look up every row's images in a store.

        Returns:
            The images without tokens, each once, in the order of the rows.

        Raises:
            ConfigError: rows that are videos.
        """
        self._store, self.crops = store, store.crops
        known = store.known_files()
        fresh: dict[str, tuple[int, int, bytes]] = {}
        self._rows, self._bad_rows = [], []
        images: dict[int, Missing] = {}
        for number, dataset in enumerate(self.datasets):
            digests, bad = _digests(dataset, known, fresh)
            self._bad_rows.append(bad)
            self._rows.append({})
            for name, column in digests.items():
                places = self._rows[-1][name] = _places(store, column)
                for row, (place, image) in enumerate(zip(places.tolist(), column, strict=True)):
                    if image is not None:
                        images.setdefault(place, Missing(place, image, number, row, name))
        store.remember_files(fresh)
        filled = store.filled(images)
        return [one for place, one in images.items() if place not in filled]

    @property
    def places(self) -> set[int]:
        """The places of all images."""
        found = {int(p) for columns in self._rows for each in columns.values() for p in each}
        return found - {-1}

    def load(self) -> None:
        """Make the tokens readable, in this process and those forked from it."""
        assert self._store is not None
        self._store.load(self.places)

    @property
    def shape(self) -> torch.Size:
        """(N, D) of an image's tokens."""
        assert self._store is not None
        return torch.Size(self._store.shape)

    def place(self, dataset: int, index: int, name: str) -> int:
        """The place of a row's image.

        Raises:
            DataError: the row, or its image, could not be read.
        """
        if (reason := self._bad_rows[dataset].get(index)) is not None:
            raise DataError(reason)
        return int(self._rows[dataset][name][index])

    def row(self, dataset: int, index: int) -> dict[str, Any]:
        """A row with the places of its images in their stead.

        Raises:
            DataError: the row, or its image, could not be read.
        """
        rows = self.datasets[dataset]
        if (reason := self._bad_rows[dataset].get(index)) is not None:
            raise DataError(reason)
        row = dict(getattr(rows, "annotation", rows.__getitem__)(index))
        names = self._rows[dataset]
        return row | {name: self.place(dataset, index, name) for name in names}

    def tokens(self, place: int, crop: int) -> Tensor:
        """The tokens of an image in place of a picture.

        Raises:
            DataError: the image could not be read when its tokens were to be computed.
            DamagedTokens: they are not what was written.
        """
        assert self._store is not None
        if (reason := self.unreadable.get(place)) is not None:
            raise DataError(reason)
        return self._mark(self._store.read(place, crop))


def _places(store: TokenStore, digests: list[bytes | None]) -> numpy.ndarray:
    there = [digest for digest in digests if digest is not None]
    places = numpy.full(len(digests), -1, numpy.int64)
    places[[digest is not None for digest in digests]] = store.places(there)
    return places


def _digests(
    dataset: Any,
    known: dict[str, tuple[int, int, bytes]],
    fresh: dict[str, tuple[int, int, bytes]],
) -> tuple[dict[str, list[bytes | None]], dict[int, str]]:
    """Each row's image digests by the image's name, None where it has none; and the bad rows."""
    columns: dict[str, list[bytes | None]] = {}
    bad: dict[int, str] = {}
    decoder = decoder_name(dataset)
    for index in range(len(dataset)):
        try:
            row = dataset[index]
            found = {
                name: image_digest(value, decoder, known, fresh)
                for name, value in row.items()
                if IMAGE_NAME.fullmatch(name)
            }
        except (DataError, OSError) as error:
            found, bad[index] = {}, str(error)
        for name, digest in found.items():
            columns.setdefault(name, [None] * len(dataset))[index] = digest
    return columns, bad


def decoder_name(dataset: Any) -> str:
    """Name the way a dataset makes pictures of its images, as far as it changes them."""
    decode = getattr(dataset, "decode", images.decode)
    options = {}
    if isinstance(decode, functools.partial):
        options = {k: v for k, v in decode.keywords.items() if v and k != "max_pixels"}
        decode = decode.func
    name = getattr(decode, "__qualname__", type(decode).__qualname__)
    return f"{name} {sorted(options.items())}"


def image_digest(
    image: Any,
    decoder: str,
    known: dict[str, tuple[int, int, bytes]],
    fresh: dict[str, tuple[int, int, bytes]],
) -> bytes:
    """The digest of an image and how it is decoded.

    Args:
        image: a picture, a file's bytes or its path.
        decoder: from ``decoder_name``.
        known: files that were read before, see ``TokenStore.known_files``.
        fresh: takes those that are read now.

    Raises:
        ConfigError: several frames.
        DataError: no such file.
    """
    if isinstance(image, list | tuple):
        raise ConfigError(
            "data.vision_tokens: a row has several frames, whose tokens are not kept; leave "
            "data.vision_tokens out for videos"
        )
    if isinstance(image, str | os.PathLike):
        content = _file_digest(os.path.abspath(image), known, fresh)
    elif isinstance(image, Image.Image):
        palette = image.getpalette() if image.mode == "P" else None
        content = _hash(f"{image.mode} {image.size} {palette}".encode(), image.tobytes())
    else:
        content = _hash(bytes(image))
    return _hash(content, decoder.encode())


def _file_digest(
    path: str,
    known: dict[str, tuple[int, int, bytes]],
    fresh: dict[str, tuple[int, int, bytes]],
) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"not a file: {path}")
        seen = (status.st_size, status.st_mtime_ns)
        if (before := known.get(path)) is not None and before[:2] == seen:
            return before[2]
        with open(path, "rb") as file:
            content = _hash(file.read())
    except FileNotFoundError:
        raise DataError(f"missing file: {path}") from None
    known[path] = fresh[path] = (*seen, content)
    return content


def _hash(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()
