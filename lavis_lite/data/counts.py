"""Accounts of datasets and of metrics: how many there are of what, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Every entry of a source is used, set aside with a reason, or left out by a named rule.

    So is every sample that a metric's figures could be of: the model gave NaN, no text is there.

    An entry is a caption of an annotation file (a row without captions is one), an image of a
    folder, a sample of a tar or a member of one that no sample has, a text of a bootstrapping run.
    Files and shards that could not be opened at all are in the dataset's ``problems``.

    Attributes:
        seen: entries of the source.
        used: rows of the dataset that can be read, as far as is known without opening images.
        set_aside: kind of reason -> entries that are damaged. They stay rows, so that reading them
            puts them into quarantine, with the whole reason, and too many end the run.
        left_out: rule -> entries that are not rows: hidden files, other splits, `where`, `limit`.
    """

    seen: int
    used: int
    set_aside: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accounted = self.used + sum(self.set_aside.values()) + sum(self.left_out.values())
        assert self.seen == accounted, f"{accounted} of {self.seen} entries are accounted for"

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, dataset: Sized) -> Counts:
        """Return a dataset's account; of one that keeps none, that all its rows are used."""
        counts = getattr(dataset, "counts", None)
        return counts if isinstance(counts, cls) else cls(len(dataset), len(dataset))

    def spell(self, unit: str) -> str:
        """Return ``12 images``, or ``10 of 12 images used; set aside: 2 (missing file)``."""
        if self.used == self.seen:
            return f"{self.seen:,} {unit}"
        return self._spelled(f"{self.used:,} of {self.seen:,} {unit} used")

    def __str__(self) -> str:
        return self._spelled(f"{self.used:,} of {self.seen:,} used")

    def _spelled(self, used: str) -> str:
        parts = [used]
        for title, counts in (("set aside", self.set_aside), ("left out", self.left_out)):
            if counts:
                listed = ", ".join(f"{number:,} ({name})" for name, number in counts.items())
                parts.append(f"{title}: {listed}")
        return "; ".join(parts)


def accounts(datasets: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the counts of datasets by name, for a run's summary; equal ones come once."""
    found: dict[str, dict[str, Any]] = {}
    for dataset in datasets:
        name, counts = getattr(dataset, "name", "dataset"), Counts.of(dataset).as_dict()
        while found.setdefault(name, counts) != counts:  # the same files, chosen from differently
            name = f"{name}'"
    return found
