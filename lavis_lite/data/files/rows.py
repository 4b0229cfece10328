"""Map-style datasets of image-text rows: the contract, a choice of rows, and compact storage."""

from __future__ import annotations

import functools
import logging
import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Unpack

import numpy

from lavis_lite.data.choice import Choice, choose
from lavis_lite.data.counts import Counts
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.images import MAX_PIXELS, ImageOptions, decode
from lavis_lite.errors import DataError

logger = logging.getLogger(__name__)


class Rows:
    """A dataset: `len(ds)` rows, each a dict with these fields and any others.

    `image`: a PIL image, bytes or a path, not decoded; a list of them is a video; several images
    are `image0`, `image1`. `text_input`: str. `image_id`: int or str, equal for rows that show the
    same image. `key`: str, unique. `answers` and `weights`: of a question. Reading a row may raise
    DataError; the loader then quarantines it.

    A subclass sets `name`, and says how many rows it has (`_count`), what they are (`_row`) and,
    where images cost time, what they are without them (`_annotation`). Optional: `facts(text)`,
    what a text states (None where it cannot be read); `decode(image)`, in place of images.decode;
    `augment(row, rng)`, in training a random variant of a row; `answer_list`, the answers to rank;
    `class_names`, of the labels; `problems`, what was wrong with the files and is missing from the
    rows, in words. `counts` says how many entries the source has and what became of each; a
    subclass notes damaged ones in `_bad` and what never became a row in `_never`.
    """

    name: str = "rows"
    _chosen: numpy.ndarray | None = None
    _bad: Mapping[int, str] = MappingProxyType({})  # number of a row -> why it is damaged
    _never: Mapping[str, int] = MappingProxyType({})  # rule -> entries that became no rows
    _dropped: Mapping[str, int] = MappingProxyType({})  # rule -> rows that were not chosen

    def _count(self) -> int:
        raise NotImplementedError

    def _row(self, number: int) -> dict[str, Any]:
        raise NotImplementedError

    def _annotation(self, number: int) -> dict[str, Any]:
        return {name: value for name, value in self._row(number).items() if name != "image"}

    def __len__(self) -> int:
        return self._count() if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._row(self._good(self._number(index)))

    def annotation(self, index: int) -> dict[str, Any]:
        """The row without its image: cheap, for whoever needs only texts, ids or labels."""
        return self._annotation(self._good(self._number(index)))

    @property
    def counts(self) -> Counts:
        """The number of entries in the source, and how many were used, set aside or left out."""
        chosen = set(self._chosen.tolist()) if self._bad and self._chosen is not None else None
        bad = [why for number, why in self._bad.items() if chosen is None or number in chosen]
        return Counts(
            seen=self._count() + sum(self._never.values()),
            used=len(self) - len(bad),
            set_aside=dict(Counter(why.split(":")[0] for why in bad)),
            left_out={**self._never, **self._dropped},
        )

    def _number(self, index: int) -> int:
        position = range(len(self))[index]  # negative indices count from the end
        return position if self._chosen is None else int(self._chosen[position])

    def _good(self, number: int) -> int:
        if number in self._bad:
            raise DataError(self._bad[number])
        return number

    def _without_bad(self, rows: Iterable[dict[str, Any] | BadRow]) -> Iterator[dict[str, Any]]:
        """The rows, with an empty one in the place of each that is damaged; those are noted."""
        bad = self._bad = dict[int, str]()
        for number, row in enumerate(rows):
            if isinstance(row, BadRow):
                bad[number] = row.reason
            yield {} if isinstance(row, BadRow) else row

    def _refuse_nothing(self, where: str) -> None:
        """Refuse a source without a sound row: the first reason is a mistake of all of it.

        Raises:
            DataError: there are no rows, or all are damaged.
        """
        if not self._count():
            raise DataError(
                f"{where}: there are no rows in it"
                + (
                    f" ({Counts(sum(self._never.values()), 0, {}, self._never)})"
                    * bool(self._never)
                )
            )
        if len(self._bad) == self._count():
            more = f" (all {len(self._bad)} entries are damaged)" * (len(self._bad) > 1)
            raise DataError(f"{next(iter(self._bad.values()))}{more}")

    def _choose(self, **choice: Unpack[Choice]) -> None:
        """Keep only the chosen rows; a subclass calls it when it knows all of them."""
        self._chosen, self._dropped = choose(
            choice, self.name, self._count(), lambda number: self._annotation(self._good(number))
        )
        counts = self.counts
        if counts.used < counts.seen:
            unasked = bool(counts.set_aside or self._never)
            logger.log(logging.WARNING if unasked else logging.INFO, "%s: %s", self.name, counts)


class FileOptions(ImageOptions, Choice, total=False):
    """The arguments of datasets of image files: how images are decoded, and a choice of rows."""


class FileRows(Rows):
    """Rows with images that are decoded from files or bytes."""

    def _finish(
        self, *, exif: bool = False, max_pixels: int = MAX_PIXELS, **choice: Unpack[Choice]
    ) -> None:
        """Set how images are decoded, and keep only the chosen rows."""
        self.decode = functools.partial(decode, exif=exif, max_pixels=max_pixels)
        self._choose(**choice)


class PackedRows:
    """Dicts in one buffer of bytes.

    A list of ten million dicts takes gigabytes, and every forked worker copies it page by page
    as it touches the reference counts; a buffer has none. Pickle is safe on what we packed.
    """

    def __init__(self, rows: Iterable[dict[str, Any]]):
        buffer, ends = bytearray(), array("q", [0])
        for row in rows:
            buffer += pickle.dumps(row, protocol=5)
            ends.append(len(buffer))
        self._buffer = numpy.frombuffer(buffer, numpy.uint8)
        self._ends = numpy.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> dict[str, Any]:
        start, end = self._ends[number : number + 2]
        return pickle.loads(self._buffer[start:end].data)
