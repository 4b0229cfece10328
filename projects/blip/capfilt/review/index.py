"""The offsets of a run's records and the scores of all texts; the texts stay on the disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from tqdm import tqdm

from lavis_lite.data.files.json_text import parse_json
from lavis_lite.errors import DataError, suggest
from lavis_lite.projects.blip.capfilt.layout import RECORDS, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.reading import read_lines
from lavis_lite.projects.blip.capfilt.texts import Record, RunRecords, Text, texts, upgraded

NONE = float("nan")  # the score of a text that a scorer gave no number
OF = ("all", "web", "synthetic")


class TextIndex:
    """All texts of a run by number, those of a record one after another, the web's first.

    Args:
        folder: output folder of a finished run.

    Attributes:
        scores: scorer -> (T,) float64, NaN where a text has no number.
        sources: names of those who wrote texts, the web's first.
        source: (T,) places in ``sources``.
        reasons: the verdicts of the run's filter, in words.
        reason: (T,) places in ``reasons``.
        kept: (T,) bool.
        hashes: (T,) of the texts; they differ from process to process.
        number_of: unique key of a record -> its number. A key that an earlier shard has too gets
            its row's number, as in the dataset `bootstrapped`.

    Raises:
        DataError: the folder is no finished run, or its files changed while they were read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.records = RunRecords(folder)
        self.folder = self.records.folder
        self.sources, self.reasons = _Codes(["web"]), _Codes([])
        self.number_of: dict[str, int] = {}
        self._image_scores: list[dict[str, Any]] = []
        columns = _Columns({name: array("d") for name in self.records.text_scores})
        offsets, starts = [numpy.empty(0, int)], [0]  # of records in files; of shards in records
        for shard in tqdm(self.records.shards, unit="shard", disable=None, leave=False):
            for record in self.records.read(shard):
                self._add(record, columns)
            offsets.append(self._lines(shard, len(self.number_of) - starts[-1]))
            starts.append(len(self.number_of))
        self.keys = list(self.number_of)
        self.scores = {name: numpy.array(column) for name, column in columns.scores.items()}
        self.source, self.reason = numpy.array(columns.source), numpy.array(columns.reason)
        self.kept, self.hashes = numpy.array(columns.kept, bool), numpy.array(columns.hashes)
        self._first, self._starts = numpy.array(columns.first), numpy.array(starts)
        self._offsets = numpy.concatenate(offsets)

    def _add(self, record: Record, columns: _Columns) -> None:
        for text in texts(record):
            for name, column in columns.scores.items():
                score = text.scores.get(name)
                column.append(NONE if score is None else score)
            columns.source.append(self.sources.code(text.source))
            columns.reason.append(self.reasons.code(text.reason))
            columns.kept.append(text.kept)
            columns.hashes.append(hash(text.text))
        columns.first.append(len(columns.kept))
        key = record["key"]
        key = f"{key}#{record['index']}" if key in self.number_of else key
        self.number_of[key] = len(self.number_of)
        if self.records.image_scores:
            self._image_scores.append(record["image_scores"])

    def _lines(self, shard: int, expected: int) -> numpy.ndarray:
        data = numpy.fromfile(self._file(shard), numpy.uint8)
        ends = numpy.flatnonzero(data == ord("\n"))
        if len(ends) != expected:
            raise DataError(f"{self._file(shard)}: changed while it was read; start again")
        return numpy.concatenate([[0], ends[:-1] + 1]) if expected else ends

    def _file(self, shard: int) -> Path:
        return self.folder / SHARDS / f"{shard_name(shard)}{RECORDS}"

    @property
    def num_records(self) -> int:
        """Records of all shards."""
        return len(self.keys)

    @property
    def num_texts(self) -> int:
        """Texts of all records, T."""
        return len(self.kept)

    def score(self, name: str) -> numpy.ndarray:
        """Return the scores of a scorer, (T,).

        Raises:
            DataError: the run has no such score.
        """
        if name not in self.scores:
            raise DataError(
                f"no score {name!r:.60}.{suggest(name, self.scores)} Known: {list(self.scores)}"
            )
        return self.scores[name]

    def of(self, source: str) -> numpy.ndarray:
        """Return which texts are of a source, (T,) bool.

        Args:
            source: ``all``, ``web``, ``synthetic`` or a captioner.

        Raises:
            DataError: nobody of this name wrote a text.
        """
        if source == "all":
            return numpy.ones(self.num_texts, bool)
        if source == "synthetic":
            return self.source > 0
        if source not in self.sources:
            known = [*OF, *self.sources]
            raise DataError(f"no source {source!r:.60}.{suggest(source, known)} Known: {known}")
        return self.source == self.sources.code(source)

    def place(self, text: int) -> tuple[int, int]:
        """Return the record of a text, and its place there: 0 for the web's."""
        record = int(numpy.searchsorted(self._first, text, side="right")) - 1
        return record, text - int(self._first[record])

    def text(self, record: int, place: int) -> int:
        """Return the number of a text; -1 if the record has none at that place."""
        number = int(self._first[record]) + place
        return number if number < self._first[record + 1] else -1

    def shard_of(self, record: int) -> int:
        """Return the number of a record's shard."""
        return self.records.shards[int(numpy.searchsorted(self._starts, record, "right")) - 1]

    def record(self, number: int) -> Record:
        """Read one record, of version 2, from the disk, without scores that were added later.

        Raises:
            DataError: it cannot be read.
        """
        path = self._file(self.shard_of(number))
        try:
            with path.open("rb") as file:
                file.seek(int(self._offsets[number]))
                return upgraded(parse_json(file.readline(), keep_bytes=True), self.records.kind)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None

    def texts(self, number: int) -> list[Text]:
        """Read the texts of a record with all their scores, those added later too."""
        first = int(self._first[number])
        return [
            text._replace(
                scores={
                    name: None if numpy.isnan(column[n]) else float(column[n])
                    for name, column in self.scores.items()
                }
            )
            for n, text in enumerate(texts(self.record(number)), first)
        ]

    def image_scores(self, number: int) -> dict[str, Any]:
        """Return what scorers say about the image of a record."""
        return self._image_scores[number] if self._image_scores else {}

    def holding_words(self, words: str) -> numpy.ndarray:
        """Read all texts and return which hold some words, (T,) bool; letters' case is ignored."""
        wanted = words.casefold().split()
        found = [all(word in text.casefold() for word in wanted) for text in self._all_texts()]
        return numpy.array(found, bool)

    def _all_texts(self) -> Iterator[str]:
        for shard in self.records.shards:
            for record in read_lines(self._file(shard)):
                yield record["web_text"]
                yield from record["synthetic"]


class _Columns:
    """The columns that are collected; ``first`` has the first text of each record."""

    def __init__(self, scores: dict[str, array[float]]) -> None:
        self.scores = scores
        self.source, self.reason, self.kept = array("i"), array("i"), array("b")
        self.hashes, self.first = array("q"), array("q", [0])


class _Codes(list[str]):
    """Names and their numbers, those that are new at the end."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self._number = {name: n for n, name in enumerate(names)}

    def code(self, name: str) -> int:
        """Return the number of a name, which is added if it is new."""
        if name not in self._number:
            self._number[name] = len(self)
            self.append(name)
        return self._number[name]

    def __contains__(self, name: object) -> bool:
        return name in self._number
