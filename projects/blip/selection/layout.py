"""The files of a selection, for those who write them and those who read them.

::

    selection.json            what was chosen from, by which rules, how many; written last
    texts/part-000007.parquet  the chosen texts of a block of the run's shards
    selection_report.html
    config.yaml, run.json, complete.json, metrics.jsonl   as of any run
    work/                     what the passes leave for each other; gone when all is done
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.io.json_files import read_json
from lavis_lite.io.paths import here

MANIFEST = "selection.json"
TEXTS = "texts"
VERSION = 1


class SelectionFolder:
    """The paths of a selection."""

    def __init__(self, path: str | Path) -> None:
        try:
            self.path = Path(here(str(path)))
        except ConfigError as error:
            raise ConfigError(f"run.output_dir: {error}") from None
        self.manifest = self.path / MANIFEST
        self.config = self.path / "config.yaml"
        self.start = self.path / "run.json"
        self.complete = self.path / "complete.json"
        self.metrics = self.path / "metrics.jsonl"
        self.texts = self.path / TEXTS
        self.work = self.path / "work"

    def part(self, block: int) -> Path:
        """The chosen texts of a block."""
        return self.texts / f"part-{block:06d}.parquet"

    def partial(self, name: str, block: int, suffix: str) -> Path:
        """The file of a pass's findings in a block."""
        return self.work / name / f"block-{block:06d}{suffix}"

    def reduced(self, name: str, suffix: str = ".json") -> Path:
        """The file of a pass's findings in all blocks together."""
        return self.work / name / f"all{suffix}"

    def is_whole(self, fingerprint: str) -> bool:
        """Tell whether the selection is finished, of this fingerprint, and none of it is cut."""
        found = read_json(self.manifest)
        return found.get("fingerprint") == fingerprint and all(
            (file := self.texts / part["name"]).is_file() and file.stat().st_size == part["size"]
            for part in found["parts"]
        )


def is_selection(path: Path) -> bool:
    """Tell whether a folder is a finished selection."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path) -> dict[str, Any]:
    """Return what a selection says of itself.

    Raises:
        DataError: it is none, not finished, or of a later release.
    """
    try:
        found = read_json(path / MANIFEST)
    except ValueError as error:
        raise DataError(f"{path / MANIFEST}: cannot be read: {error}") from None
    if not found:
        begun = (path / "work").is_dir()
        why = "it is not finished: start it again" if begun else f"no {MANIFEST} in it"
        raise DataError(f"{path}: not a selection: {why}")
    if found["version"] > VERSION:
        raise DataError(f"{path}: a selection of version {found['version']}: update lavis_lite")
    return found


def hash_of(value: object) -> str:
    """A short hash of anything that JSON holds."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
