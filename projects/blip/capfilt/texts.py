"""The texts of a run with all their scores: of records of any version, and of scores added later.

A record of version 1 has the filter's score alone. Version 2 names who wrote each text
(``sources``) and has the scores of every scorer (``text_scores``, ``image_scores``). What was added
to a finished run lies in a folder of its own, shard by shard, and is joined here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lavis_lite.errors import DataError
from lavis_lite.io.json_files import read_json
from lavis_lite.io.paths import here
from lavis_lite.projects.blip.capfilt.layout import DONE, JOB, RECORDS, SCORES, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.reading import finished_shards, read_job, read_lines

Record = dict[str, Any]
WEB = "web"  # the source of the text that came with the image
CAPTIONER = "captioner"  # that of synthetic texts where a run has one captioner without a name


class Text(NamedTuple):
    """One text of an image.

    ``source`` is ``web`` or the captioner's name; ``scores`` has a number for each scorer, None
    where it gave none; ``kept`` and ``reason`` are the verdict of the run's filter.
    """

    source: str
    text: str
    scores: dict[str, float | None]
    kept: bool
    reason: str


def texts(record: Record, kind: str = "itm") -> list[Text]:
    """Return the texts of a record: the web's at index 0, then the synthetic ones.

    Args:
        record: of any version, as a file or `read_records` has it.
        kind: the name of the filter's score in a record of version 1.
    """
    record = upgraded(record, kind)
    by_scorer = record["text_scores"]
    web = Text(
        WEB,
        record["web_text"],
        {name: own["web"] for name, own in by_scorer.items()},
        record["kept"]["web"],
        record["reason"]["web"],
    )
    synthetic = [
        Text(
            record["sources"][place],
            text,
            {name: own["synthetic"][place] for name, own in by_scorer.items()},
            record["kept"]["synthetic"][place],
            record["reason"]["synthetic"][place],
        )
        for place, text in enumerate(record["synthetic"])
    ]
    return [web, *synthetic]


def upgraded(record: Record, kind: str | None = "itm") -> Record:
    """Return a record of version 1 as one of version 2; another one as it is.

    Args:
        record: of any version.
        kind: the name of the filter's score; None where there was no filter.
    """
    if record.get("version", 1) > 1:
        return record
    return {
        **record,
        "version": 2,
        "sources": [CAPTIONER] * len(record["synthetic"]),
        "text_scores": {} if kind is None else {kind: record["scores"]},
        "image_scores": {},
    }


class Added(NamedTuple):
    """Scores that were added to a run: their folder, its job, and the shards that are done."""

    folder: Path
    job: dict[str, Any]
    shards: list[int]


class RunRecords:
    """The records of a run, shard by shard, with the scores that were added to it.

    Args:
        folder: the run's output folder.
        unfinished_ok: read the shards that are done of a run, or of added scores, that is not;
            records then lack the scores that are not there yet.

    Attributes:
        shards: numbers of the shards that can be read, in order.
        text_scores: names of the scores that texts have.
        image_scores: names of the scores that images have.

    Raises:
        DataError: no such folder, shards that are not done, or a score that is there twice.
    """

    def __init__(self, folder: str | Path, unfinished_ok: bool = False) -> None:
        self.folder = Path(here(str(folder)))
        self.job = read_job(self.folder)
        self.shards = finished_shards(self.folder, self.job["num_shards"], unfinished_ok)
        self.kind: str | None = self.job.get("settings", {}).get("filter.score")
        self._added = [
            Added(path, job, finished_shards(path, job["num_shards"], unfinished_ok))
            for path, job in added_scores(self.folder)
            if not unfinished_ok or any((path / SHARDS).glob(f"*{DONE}"))
        ]
        self.text_scores = [] if self.kind is None else [self.kind]
        self.image_scores: list[str] = []
        for job in (self.job, *(added.job for added in self._added)):
            self.text_scores += job.get("text_scores", [])
            self.image_scores += job.get("image_scores", [])
        names = [*self.text_scores, *self.image_scores]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(
                f"{self.folder}: several scores are named {', '.join(twice)}; delete one of the "
                f"folders in {self.folder / SCORES}"
            )

    def __iter__(self) -> Iterator[Record]:
        for shard in self.shards:
            yield from self.read(shard)

    def read(self, shard: int) -> Iterator[Record]:
        """Yield the records of a shard, of version 2.

        Raises:
            DataError: added scores are not those of these records.
        """
        records = read_lines(self._file(self.folder, shard))
        added = [self._scores(one, shard) for one in self._added if shard in one.shards]
        for record in records:
            record = upgraded(record, self.kind)
            for one, lines in added:
                self._join(record, next(lines, {}), one.folder, shard)
            yield record

    def _scores(self, added: Added, shard: int) -> tuple[Added, Iterator[Record]]:
        """Added scores of a shard, which must be those of the records as they are now."""
        mark = read_json(added.folder / SHARDS / f"{shard_name(shard)}{DONE}")
        if mark.get("records_sha256") != records_hash(self.folder, shard):
            raise DataError(
                f"{added.folder}: its scores of {shard_name(shard)} are of other records than "
                f"{self.folder} has now; delete that folder and add the scores again"
            )
        return added, read_lines(self._file(added.folder, shard))

    @staticmethod
    def _join(record: Record, scores: Record, folder: Path, shard: int) -> None:
        if scores.get("index") != record["index"]:
            raise DataError(f"{folder}: {shard_name(shard)} lacks the scores of {record['key']}")
        record["text_scores"] = {**record["text_scores"], **scores["text_scores"]}
        record["image_scores"] = {**record["image_scores"], **scores["image_scores"]}

    @staticmethod
    def _file(folder: Path, shard: int) -> Path:
        return folder / SHARDS / f"{shard_name(shard)}{RECORDS}"


def read_records(folder: str | Path, unfinished_ok: bool = False) -> Iterator[Record]:
    """Yield the records of a run in order, of version 2, joined with the scores added later.

    Args:
        folder: the run's output folder.
        unfinished_ok: see `RunRecords`.

    Raises:
        DataError: see `RunRecords`.
    """
    yield from RunRecords(folder, unfinished_ok)


def added_scores(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folders of scores that were added to a run, with their jobs, by name."""
    paths = sorted(path.parent for path in (folder / SCORES).glob(f"*/{JOB}"))
    return [(path, read_job(path)) for path in paths]


def records_hash(folder: Path, shard: int) -> str | None:
    """Return the SHA-256 of a finished shard's records, as its mark has it; None without one."""
    mark = read_json(folder / SHARDS / f"{shard_name(shard)}{DONE}")
    name = f"{shard_name(shard)}{RECORDS}"
    return mark.get("files", {}).get(name, {}).get("sha256")
