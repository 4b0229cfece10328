"""Map-style datasets of image-text rows: the contract, compact storage, and choosing rows."""

from __future__ import annotations

import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy

from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, suggest


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
    rows, in words.
    """

    name: str = "rows"
    _chosen: numpy.ndarray | None = None

    def _count(self) -> int:
        raise NotImplementedError

    def _row(self, number: int) -> dict[str, Any]:
        raise NotImplementedError

    def _annotation(self, number: int) -> dict[str, Any]:
        return {name: value for name, value in self._row(number).items() if name != "image"}

    def __len__(self) -> int:
        return self._count() if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._row(self._number(index))

    def annotation(self, index: int) -> dict[str, Any]:
        """The row without its image: cheap, for whoever needs only texts, ids or labels."""
        return self._annotation(self._number(index))

    def _number(self, index: int) -> int:
        position = range(len(self))[index]  # negative indices count from the end
        return position if self._chosen is None else int(self._chosen[position])

    def _choose(
        self,
        limit: int | None = None,
        where: Mapping[str, Any] | None = None,
        fold: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep only some rows; the arguments that every dataset takes, in this order.

        Args:
            limit: at most so many, the first ones, of what the others leave.
            where: `{label: "true"}`: rows whose field has the value, or one of a list of values.
            fold: `{by: image_group, of: 6, take: [0, 1]}`: rows are dealt into `of` parts by a
                hash of the field `by` (default image_id), so that rows with an equal value stay
                together; keep the parts in `take`.
        """
        if where or fold:
            self._chosen = _matching(self, where or {}, fold)
        if limit is not None:
            if limit < 1:
                raise ConfigError(f"limit: {limit}; at least 1, or null for all rows")
            self._chosen = numpy.arange(len(self)) if self._chosen is None else self._chosen
            self._chosen = self._chosen[:limit]


def _matching(
    rows: Rows, where: Mapping[str, Any], fold: Mapping[str, Any] | None
) -> numpy.ndarray:
    by, parts, take = _fold(fold)
    wanted = {name: _texts(value) for name, value in where.items()}
    seen: dict[str, Counter] = {name: Counter() for name in wanted}
    chosen: list[int] = []
    fields: set[str] = set()
    for number in range(rows._count()):
        try:
            row = rows._annotation(number)
        except DataError:  # kept, so that reading it puts it into quarantine
            chosen.append(number)
            continue
        fields.update(row)
        for name in wanted:
            seen[name][_text(row.get(name))] += 1
        if all(_text(row.get(name)) in values for name, values in wanted.items()) and (
            not by or stable_hash(str(row.get(by))) % parts in take
        ):
            chosen.append(number)
    for name in [*wanted, *filter(None, [by])]:
        if name not in fields:
            raise DataError(
                f"{rows.name}: no row has a field {name!r}.{suggest(name, fields)}"
                f" Fields: {', '.join(sorted(fields))}"
            )
    if not chosen:
        values = {name: dict(counts.most_common(5)) for name, counts in seen.items()}
        raise DataError(
            f"{rows.name}: where={dict(where)}, fold={dict(fold or {})} leave none of"
            f" {rows._count()} rows. Values seen: {values}"
        )
    return numpy.array(chosen)


def _fold(fold: Mapping[str, Any] | None) -> tuple[str | None, int, set[int]]:
    if not fold:
        return None, 1, {0}
    known = ("by", "of", "take")
    for name in fold:
        if name not in known:
            raise ConfigError(
                f"fold.{name}: unknown key.{suggest(name, known)} Known: by, of, take"
            )
    parts, take = fold.get("of", 0), fold.get("take", [])
    take = {take} if isinstance(take, int) else set(take)
    if not isinstance(parts, int) or parts < 2 or not take <= set(range(parts)) or not take:
        raise ConfigError(
            f"fold: of={parts!r}, take={sorted(take)}; `of` is a number of parts, 2 or more,"
            " `take` lists some of 0 ... of - 1"
        )
    return fold.get("by", "image_id"), parts, take


def _texts(value: Any) -> set[str]:
    return {_text(one) for one in (value if isinstance(value, list | tuple | set) else [value])}


def _text(value: Any) -> str:
    """For comparing: `true` in a config means the "true" of a JSON file, too."""
    return str(value).lower() if isinstance(value, bool | str) else str(value)


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
