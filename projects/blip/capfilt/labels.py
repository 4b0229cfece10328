"""People's judgements of the texts of a run: append-only files, one for each labeller.

::

    labels/anna.jsonl    {"key", "place", "source", "text", "label", "labeller", "time", "note"}

A judgement is written as one line, on the disk before it is confirmed; a line that a crash cut
short is skipped. Who changes their mind writes another line: the last one for a key, a place and a
labeller holds.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lavis_lite.errors import DataError, suggest

try:
    import fcntl
except ImportError:  # Windows: one process writes at a time there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LABELS = "labels"  # the folder in a run's output folder
FITS, DOES_NOT_FIT, UNSURE = "fits", "does not fit", "unsure"
JUDGEMENTS = (FITS, DOES_NOT_FIT, UNSURE)
_LABELLER = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Label:
    """One judgement of one text.

    Attributes:
        key: of the sample.
        place: 0 for the web text, 1 and up for the synthetic ones.
        source: ``web``, or the captioner that wrote the text.
        text: as it was judged.
        label: ``fits``, ``does not fit`` or ``unsure``.
        labeller: who judged.
        time: when, ISO 8601 with the offset from UTC.
        note: a remark, or an empty string.

    Raises:
        DataError: an unknown judgement, a negative place, or a labeller that is no file name.
    """

    key: str
    place: int
    source: str
    text: str
    label: str
    labeller: str
    time: str
    note: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, wanted = getattr(self, field.name), int if field.name == "place" else str
            if type(value) is not wanted:
                raise DataError(f"{field.name} of a label: {value!r:.60} is no {wanted.__name__}")
        if self.label not in JUDGEMENTS:
            hint = suggest(self.label, JUDGEMENTS)
            raise DataError(f"no label {self.label!r:.60}.{hint} Known: {list(JUDGEMENTS)}")
        if self.place < 0:
            raise DataError(f"place of a label: {self.place} is negative; 0 is the web text")
        check_labeller(self.labeller)


def check_labeller(name: str) -> str:
    """Return the name of a labeller, which is a part of a file's name.

    Raises:
        DataError: it is empty, long, or has other signs than letters, digits and ``_ . @ -``.
    """
    if not _LABELLER.fullmatch(name) or name.startswith("."):
        raise DataError(
            f"labeller {name!r:.80}: take letters, digits and _ . @ - (64 at most, no dot first)"
        )
    return name


def append(folder: Path, label: Label) -> None:
    """Write a judgement down; it is on the disk when this returns.

    Several processes may write the same labeller's file: each line is whole.

    Args:
        folder: the run's output folder.
        label: to append to the labeller's file.

    Raises:
        DataError: the disk is full, or the file cannot be written; nothing is left of the line.
    """
    path = folder / LABELS / f"{label.labeller}.jsonl"
    line = (json.dumps(dataclasses.asdict(label)) + "\n").encode("ascii")
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed
            _append_line(file, line)
    except OSError as error:
        raise DataError(f"{path}: the label was not written: {error}") from None


def _append_line(file: BinaryIO, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    if end:  # what a crash cut short must not swallow the line that comes after it
        file.seek(end - 1)
        line = line if file.read(1) == b"\n" else b"\n" + line
    try:
        written = file.write(line)
        if written != len(line):
            raise OSError(f"{written} of {len(line)} bytes were written: is the disk full?")
        os.fsync(file.fileno())
    except OSError:
        os.ftruncate(file.fileno(), end)
        raise


def read_labels(path: str | Path) -> list[Label]:
    """Return the judgements that hold: the last for each key, place and labeller, oldest first.

    Args:
        path: a file of labels, a folder of such files, or the output folder of a run.

    Raises:
        DataError: there is nothing, or a line is no label (one that was cut short is skipped).
    """
    path = Path(path)
    if (path / LABELS).is_dir():
        path = path / LABELS
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise DataError(f"{path}: no labels; `lavis-lite review FOLDER` writes some")
    holding = Holding()
    for file in files:
        holding.read(file, to_the_end=True)
    return sorted(holding, key=lambda label: label.time)


class Holding:
    """The judgements that hold, by (key, place, labeller), of files that may go on growing."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, int, str], Label] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of each file so far

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels.values())

    def read(self, path: Path, to_the_end: bool = False) -> list[Label]:
        """Take in what a file has got since it was last read; returns that.

        Args:
            path: of the file.
            to_the_end: read a last line without a line feed too; else it is still being written.

        Raises:
            DataError: a line is no label.
        """
        start, number = self._read.get(path, (0, 0))
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < start:  # put in the place of what was read
                start, number = 0, 0
            file.seek(start)
            data = file.read()
        if not to_the_end:
            data = data[: data.rfind(b"\n") + 1]
        found = []
        for line in data.split(b"\n"):
            number += 1
            if line.strip() and (label := _parsed(line, f"{path}, line {number}")):
                self._labels[label.key, label.place, label.labeller] = label
                found.append(label)
        self._read[path] = start + len(data), number - 1
        return found


def _parsed(line: bytes, where: str) -> Label | None:
    """Return the label of a line; None for one that was cut short."""
    try:
        values = json.loads(line)
    except ValueError:
        log.warning("%s: cut short, skipped", where)
        return None
    try:
        return _label(values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _label(values: object) -> Label:
    if not isinstance(values, dict):
        raise DataError(f"{values!r:.60} is no label")
    names = [field.name for field in dataclasses.fields(Label)]
    missing = [name for name in names if name not in values and name != "note"]
    if missing:
        raise DataError(f"a label without {', '.join(missing)}")
    return Label(**{name: values[name] for name in names if name in values})


def verdicts(labels: Iterable[Label]) -> dict[tuple[str, int], bool]:
    """Return what most labellers say of each text: True if it fits its image.

    Texts that are judged ``unsure``, or as often one way as the other, are left out.

    Args:
        labels: of `read_labels`, one for each labeller and text.

    Returns:
        (key, place) -> verdict.
    """
    votes: dict[tuple[str, int], Counter[str]] = {}
    for label in labels:
        votes.setdefault((label.key, label.place), Counter())[label.label] += 1
    return {
        place: count[FITS] > count[DOES_NOT_FIT]
        for place, count in votes.items()
        if count[FITS] != count[DOES_NOT_FIT]
    }
