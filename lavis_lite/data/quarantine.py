"""The record of unreadable samples with their reasons; a run with too many of them ends."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from lavis_lite.errors import DataError

logger = logging.getLogger(__name__)
_LOG_EVERY = 1000
_ENOUGH_TO_JUDGE = 100


class Quarantine:
    """A file of unreadable samples, one JSON record each, that survives restarts.

    A record has `dataset`, `index`, `key`, `reason` (its kind before a colon) and, from training,
    `epoch`. Each (dataset, index) is written once, by whichever process or run meets it first.

    Args:
        path: the JSONL file, made at the first record; None keeps only the counts.
        max_bad_fraction: more bad ones than this among the samples read, after the first hundred,
            is an error.

    Attributes:
        counts: reason -> number of different samples, of earlier runs too.
        total: their sum.
    """

    def __init__(self, path: str | None = None, max_bad_fraction: float = 0.1):
        self.path = Path(path) if path else None
        self.max_bad_fraction = max_bad_fraction
        self.counts: Counter[str] = Counter()
        self._known: set[tuple[str, int]] = set()
        self._read_up_to = 0
        self._num_read = self._num_bad = 0
        self._last = ""
        self._unwritten = b""  # of a full disk
        self._catch_up()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, record: dict[str, Any]) -> None:
        """Note one sample that could not be read; the first and every 1000th is logged."""
        self._num_bad += 1
        self._last = f"{record['dataset']}[{record['index']}] ({record['key']}): {record['reason']}"
        if self._num_bad == 1 or self._num_bad % _LOG_EVERY == 0:
            where = f"; all are in {self.path}" if self.path else ""
            logger.warning("unreadable sample %d: %s%s", self._num_bad, self._last, where)
        if (record["dataset"], record["index"]) in self._known:
            return
        self._catch_up()  # another process may have met it
        if (record["dataset"], record["index"]) not in self._known:
            self._remember(record)
            self._append(record)

    def seen(self, num_samples: int) -> None:
        """Count samples read, bad ones included.

        Raises:
            DataError: when too many of them were bad, with the counts by reason.
        """
        self._num_read += num_samples
        limit = self.max_bad_fraction * self._num_read
        if self._num_read >= _ENOUGH_TO_JUDGE and self._num_bad > limit:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.counts.most_common())
            raise DataError(
                f"{self._num_bad} of {self._num_read} samples could not be read, more than"
                f" max_bad_fraction={self.max_bad_fraction:g}: {reasons}. The last: {self._last}."
                + (f" All of them: {self.path}" if self.path else "")
            )

    def state_dict(self) -> dict[str, int]:
        """Return the counts so far, so that a resumed run does not judge by a few samples."""
        return {"read": self._num_read, "bad": self._num_bad}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take up the counts of an earlier process."""
        self._num_read, self._num_bad = state["read"], state["bad"]

    def _remember(self, record: dict[str, Any]) -> None:
        self._known.add((record["dataset"], record["index"]))
        self.counts[record["reason"].split(":")[0]] += 1

    def _catch_up(self) -> None:
        """Read what stands in the file beyond what was read; half a line is left for later."""
        if not self.path or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_up_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_up_to += len(line)
                try:
                    record = json.loads(line)
                    known = (record["dataset"], record["index"]) in self._known
                except (ValueError, KeyError, TypeError):
                    continue  # a line that was cut when its writer was killed
                if not known:
                    self._remember(record)

    def _append(self, record: dict[str, Any]) -> None:
        if not self.path:
            return
        was_held_up = bool(self._unwritten)
        line = json.dumps(record, ensure_ascii=False) + "\n"
        # Names of files that are no UTF-8 are written so that JSON's readers get them back.
        self._unwritten += line.encode("utf-8", "backslashreplace")
        try:
            self._write()
        except OSError as error:
            if not was_held_up:
                logger.error("%s: %s; records are held back until there is room", self.path, error)

    def _write(self) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            end = file.tell()
            file.seek(max(0, end - 1))
            cut = end and file.read(1) != b"\n"
            data = b"\n" * cut + self._unwritten
            while data:
                data = data[file.write(data) :]
        self._unwritten = b""  # only now: a line that found half its room is written anew
