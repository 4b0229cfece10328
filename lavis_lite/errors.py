"""The errors that a user of lavis_lite can meet, and how they suggest the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import islice


class UnknownName(LookupError):
    """A registered name, model type, split or capability that does not exist."""


class ConfigError(ValueError):
    """A config that cannot be run as written."""


class CheckpointError(ValueError):
    """Weights or training state that cannot be read, or do not fit the model."""


class DataError(ValueError):
    """A dataset, annotation, shard or sample that cannot be read."""


class DownloadError(OSError):
    """A file that could not be fetched whole and unaltered."""


class NotFinite(FloatingPointError):
    """A model gave NaN or infinity where numbers are needed.

    Args:
        what: it gave no numbers as, such as "the logits of a text".
        rows: for which rows of the batch.
    """

    def __init__(self, what: str, rows: Iterable[int] = ()) -> None:
        self.what, self.rows = what, sorted(rows)
        where = f" for {_numbered(self.rows)} of the batch" if self.rows else ""
        super().__init__(
            f"the model gives NaN or infinity as {what}{where}: are its weights sound, the "
            "precision (fp16?) wide enough and the images numbers?"
        )

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str, list[int]]]:
        return type(self), (self.what, self.rows)


def _numbered(rows: list[int]) -> str:
    listed = ", ".join(map(str, rows[:5])) + (" ..." if len(rows) > 5 else "")
    return f"row {listed}" if len(rows) == 1 else f"rows {listed}"


def suggest(name: str, candidates: Iterable[str]) -> str:
    """The nearest valid spelling as `` Did you mean 'x'?``, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(c) for c in candidates], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Iterable[object], most: int = 12) -> str:
    """Return names with commas between, and how many more there are: no message fills a screen."""
    names = list(names)
    shown = [f"{name!s:.60}" for name in islice(names, most)]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown) + more
