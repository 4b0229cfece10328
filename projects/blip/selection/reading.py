"""A finished selection as it is read back: its texts in order, and the run that they are of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite.errors import DataError
from lavis_lite.io.paths import here
from lavis_lite.projects.blip.capfilt.table import batches, need_pyarrow
from lavis_lite.projects.blip.selection.layout import TEXTS, read_manifest

ROWS_AT_ONCE = 10_000


class Selection:
    """A selection's folder.

    Args:
        path: of it.

    Attributes:
        manifest: what it says of itself, see `layout`.
        records: the folder of the run that its texts are of.

    Raises:
        ConfigError: pyarrow is not installed.
        DataError: it is none, not finished, a part is missing or cut, or the run is gone.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(here(str(path)))
        need_pyarrow(str(path))
        self.manifest = read_manifest(self.path)
        for part in self.manifest["parts"]:
            file = self.path / TEXTS / part["name"]
            if not file.is_file() or file.stat().st_size != part["size"]:
                raise DataError(f"{file}: missing or cut; delete {self.path} and select again")
        self.records = self._records()

    def _records(self) -> Path:
        near = (self.path / self.manifest["records_from_here"]).resolve()
        for folder in (near, Path(self.manifest["records"])):
            if folder.is_dir():
                return folder
        raise DataError(
            f"{self.path}: the run that its texts are of is neither at {near} nor at "
            f"{self.manifest['records']}; move it back"
        )

    def __len__(self) -> int:
        return sum(self.manifest["counts"]["chosen"].values())

    @property
    def scores(self) -> list[str]:
        """Names of the scores that its texts have."""
        return list(self.manifest["scores"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the texts: key, shard, index, place, source, text, why, and ``score_NAME``."""
        for part in self.manifest["parts"]:
            for batch in batches(self.path / TEXTS / part["name"], ROWS_AT_ONCE):
                yield from batch.to_pylist()

    def places(self) -> Iterator[tuple[int, dict[int, set[int]]]]:
        """Yield each shard with the places of its chosen texts by row of the source: 0 is web."""
        columns = ["shard", "index", "place"]
        for part in self.manifest["parts"]:
            chosen: dict[int, dict[int, set[int]]] = {shard: {} for shard in part["shards"]}
            for batch in batches(self.path / TEXTS / part["name"], ROWS_AT_ONCE, columns):
                for shard, index, place in zip(
                    *(c.to_pylist() for c in batch.columns), strict=True
                ):
                    chosen[shard].setdefault(index, set()).add(place)
            yield from chosen.items()
