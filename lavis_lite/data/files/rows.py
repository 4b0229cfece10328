"""Map-style datasets of image-text rows: the contract, compact storage, and choosing rows."""

from __future__ import annotations

import logging
import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy

from lavis_lite.data.counts import Counts
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, listed, suggest

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
        dropped = Counter[str]()
        if where or fold:
            self._chosen = _matching(self, where or {}, fold, dropped)
        if limit is not None:
            if limit < 1:
                raise ConfigError(f"limit: {limit}; at least 1, or null for all rows")
            dropped["limit"] = max(0, len(self) - limit)
            self._chosen = numpy.arange(len(self)) if self._chosen is None else self._chosen
            self._chosen = self._chosen[:limit]
        self._dropped = dict(+dropped)
        counts = self.counts
        if counts.used < counts.seen:
            unasked = bool(counts.set_aside or self._never)
            logger.log(logging.WARNING if unasked else logging.INFO, "%s: %s", self.name, counts)


def _matching(
    rows: Rows,
    where: Mapping[str, Any],
    fold: Mapping[str, Any] | None,
    dropped: Counter[str],
) -> numpy.ndarray:
    """Return the numbers of the chosen rows; count the others by the rule that left them out."""
    by, parts, take = _fold(fold)
    allowed = {name: _texts(value) for name, value in where.items()}
    seen: dict[str, Counter] = {name: Counter() for name in allowed}
    chosen: list[int] = []
    fields: set[str] = set()
    for number in range(rows._count()):
        try:
            row = rows._annotation(rows._good(number))
        except DataError:  # kept, so that reading it puts it into quarantine
            chosen.append(number)
            continue
        fields.update(row)
        for name in allowed:
            seen[name][_text(row.get(name))] += 1
        other = next((n for n, values in allowed.items() if _text(row.get(n)) not in values), None)
        if other is not None:
            dropped[f"another {other}"] += 1
        elif by and stable_hash(str(row.get(by))) % parts not in take:
            dropped["fold"] += 1
        else:
            chosen.append(number)
    for name in [*allowed, *filter(None, [by])]:
        if name not in fields:
            raise DataError(
                f"{rows.name}: no row has a field {name!r}.{suggest(name, fields)}"
                f" Fields: {listed(sorted(fields))}"
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


def _texts(value: object) -> set[str]:
    return {_text(one) for one in (value if isinstance(value, list | tuple | set) else [value])}


def _text(value: object) -> str:
    """Return a value as text to compare: `true` in a config equals "true" in a JSON file."""
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
