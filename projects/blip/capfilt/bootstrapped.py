"""Image-text pairs that a bootstrapping run wrote: web and synthetic texts with their scores."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.data.files.images import MAX_PIXELS, decode
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.files.rows import PackedRows, Rows
from lavis_lite.data.files.tables import foreign
from lavis_lite.data.files.tar_index import Members, index_shard
from lavis_lite.data.seeding import stable_hash
from lavis_lite.errors import ConfigError, DataError, suggest
from lavis_lite.io.paths import here
from lavis_lite.io.redaction import REDACTED
from lavis_lite.modules.interfaces import RowDataset
from lavis_lite.projects.blip.capfilt.layout import DONE, IMAGES, JOB, RECORDS, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.moved_images import MovedImages

_TEXTS = {  # which texts of a record: (web, synthetic, only those that were kept)
    "kept": (True, True, True),
    "kept_web": (True, False, True),
    "kept_synthetic": (False, True, True),
    "web": (True, False, False),
    "synthetic": (False, True, False),
    "all": (True, True, False),
    "web_at_random": (True, False, False),
}


@registry.register("dataset", "bootstrapped")
class Bootstrapped(Rows):
    """The texts that a bootstrapping run kept, each a row with its image.

    A row has, besides the usual fields, `origin` (`web` or `synthetic`), `score` (None where there
    was no filter), `kept` and the fields that its sample had in the source. Images come from the
    run's tar shards where it wrote some, else from where the source has them.

    Args:
        path: the run's output folder.
        texts: `kept`, `kept_web`, `kept_synthetic`; or, whatever the filter said, `web`,
            `synthetic`, `all`; or `web_at_random`, as many web texts as were kept, by chance: what
            a filter is to be compared with.
        unfinished_ok: read the shards that are done of a run that is not.
        images: where the images lie now, if the source's folder has moved since the run.
        limit, where, fold: a choice of the rows, see `Rows._choose`.

    Raises:
        ConfigError: on an unknown choice of texts.
        DataError: no such folder, shards that are not done, or no texts in them.
    """

    def __init__(
        self,
        path: str,
        texts: str = "kept",
        unfinished_ok: bool = False,
        images: str | None = None,
        limit: int | None = None,
        where: dict[str, Any] | None = None,
        fold: dict[str, Any] | None = None,
    ):
        if texts not in _TEXTS:
            raise ConfigError(
                f"bootstrapped.texts: no {texts!r}.{suggest(texts, _TEXTS)} Known: {list(_TEXTS)}"
            )
        self._folder = Path(here(path))
        self.name = f"bootstrapped-{self._folder.name}-{texts}"
        self._source, num_shards = _read_job(self._folder)
        numbers = _finished(self._folder, num_shards, unfinished_ok)
        self._tars = {n: tar for n in numbers if (tar := self._path(n, IMAGES)).is_file()}
        self._texts = Counter[str]()
        with foreign(self._folder / SHARDS, "the output of a bootstrapping run"):
            rows = self._all(numbers, texts)
            if texts == "web_at_random":
                rows = _at_random(rows, self._all(numbers, texts), self._texts)
            self._rows = PackedRows(rows)
        self._never = dict(+self._texts)
        del self._keys, self._texts
        if not len(self._rows):
            raise DataError(f"{path}: no texts ({texts}) in its {len(numbers)} shards")
        arguments = {k: v for k, v in self._source.items() if k in ("exif", "max_pixels")}
        self._moved = MovedImages(self._source, images) if images else None
        self.decode = functools.partial(decode, **{"max_pixels": MAX_PIXELS, **arguments})
        self._choose(limit, where, fold)

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / SHARDS / f"{shard_name(number)}{suffix}"

    def _all(self, numbers: list[int], texts: str) -> Iterator[dict[str, Any]]:
        self._keys: set[str] = set()
        self._texts.clear()
        for number in numbers:
            yield from self._read(number, *_TEXTS[texts])

    def _read(
        self, number: int, web: bool, synthetic: bool, only_kept: bool
    ) -> Iterator[dict[str, Any]]:
        """A row for each wanted text of a shard."""
        members = self._members(number)
        for record in _records(self._path(number, RECORDS)):
            shared = {
                **record["fields"],
                "image": record["image"],
                "image_id": record["image_id"],
                "index": record["index"],
            }
            if members is not None:
                shared["member"] = (number, members.get(f"{record['index']:09d}"))
            key = self._unique(record["key"], record["index"])
            for text_row in _texts_of(record):
                is_asked_for = web if text_row["origin"] == "web" else synthetic
                if not is_asked_for:
                    self._texts[f"{text_row['origin']} texts, which are not asked for"] += 1
                elif not text_row["text_input"].strip():
                    self._texts["empty text"] += 1
                elif only_kept and not text_row["kept"]:
                    self._texts["not kept by the filter"] += 1
                else:
                    yield {**shared, **text_row, "key": f"{key}/{text_row['key']}"}

    def _unique(self, key: str, index: int) -> str:
        """A key that other shards have too gets its row's number."""
        unique = f"{key}#{index}" if key in self._keys else key
        self._keys.add(unique)
        return unique

    def _members(self, number: int) -> dict[str, tuple[int, int]] | None:
        """Position and size of each image in a shard's tar; None where there is none."""
        if number not in self._tars:
            return None
        return {key: _image(m) for key, m in index_shard(self._tars[number]).samples}

    def _count(self) -> int:
        return len(self._rows)

    def _annotation(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        return {k: v for k, v in row.items() if k not in ("image", "index", "member")}

    def _row(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        if row.get("member") and row["member"][1]:
            image: object = self._from_tar(*row["member"])
        elif row["image"] is not None:
            image = self._moved(row["image"]) if self._moved else row["image"]
        else:
            image = self._dataset[row["index"]]["image"]
        return {"image": image, **self._annotation(number)}

    def _from_tar(self, shard: int, place: tuple[int, int]) -> bytes:
        with self._tars[shard].open("rb") as file:
            data = os.pread(file.fileno(), place[1], place[0])
        if len(data) < place[1]:
            raise DataError(f"truncated shard: {self._tars[shard]} has shrunk")
        return data

    def facts(self, text: str) -> frozenset[str] | None:
        """Return the facts that a text states, as the source reads it.

        Raises:
            ConfigError: it reads no facts.
        """
        read = getattr(self._dataset, "facts", None)
        if read is None:
            raise ConfigError(f"{self.name}: its source cannot tell the facts of a text")
        return read(text)

    @functools.cached_property
    def _dataset(self) -> RowDataset:
        """The source, for images that are no files.

        Raises:
            ConfigError: it needs a secret, which the run did not write down.
        """
        if REDACTED in json.dumps(self._source):
            raise ConfigError(
                f"{self._folder / JOB}: its source needs a secret that was taken out when it was "
                "written; bootstrap with output.images=true, so that its images are at hand"
            )
        return registry.build("dataset", self._source)


def _texts_of(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The texts of a record with their scores and verdicts; `key` is what tells them apart."""
    scores, kept = record["scores"], record["kept"]
    yield {
        "text_input": record["web_text"],
        "score": scores["web"],
        "origin": "web",
        "kept": kept["web"],
        "key": "web",
    }
    for place, text in enumerate(record["synthetic"]):
        yield {
            "text_input": text,
            "score": scores["synthetic"][place],
            "origin": "synthetic",
            "kept": kept["synthetic"][place],
            "key": f"synthetic-{place}",
        }


def _at_random(
    rows: Iterator[dict[str, Any]], again: Iterator[dict[str, Any]], left_out: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Return a random sample of as many rows as were kept, by hashes of their keys, in order.

    Args:
        rows: all rows.
        again: the same rows a second time, so that none need be held in memory.
        left_out: takes the number of the others.
    """
    pairs = [(stable_hash("at random", row["key"]), row["kept"]) for row in rows]
    number = sum(kept for _, kept in pairs)
    chosen = {hashed for hashed, _ in sorted(pairs)[:number]}
    for row in again:
        if stable_hash("at random", row["key"]) in chosen:
            yield row
        else:
            left_out["not drawn"] += 1


def _image(members: Members) -> tuple[int, int]:
    return next(place for extension, place in members.items() if extension not in ("json", "txt"))


def _read_job(folder: Path) -> tuple[dict[str, Any], int]:
    """The component of the source, and how many shards the run has."""
    try:
        job = parse_json((folder / JOB).read_bytes(), keep_bytes=True)
    except FileNotFoundError:
        raise DataError(
            f"{folder}: not the output of a bootstrapping run, no {JOB} in it"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / JOB}: cannot be read: {error}") from None
    fields = job if isinstance(job, dict) else {}
    source, num_shards = fields.get("source"), fields.get("num_shards")
    if not isinstance(source, dict) or not isinstance(num_shards, int):
        raise DataError(f"{folder / JOB}: has no `source` (a dataset) or `num_shards` (a number)")
    return source, num_shards


def _finished(folder: Path, num_shards: int, unfinished_ok: bool) -> list[int]:
    names = (file.stem for file in (folder / SHARDS).glob(f"shard-*{DONE}"))
    found = (int(number) for name in names if (number := name.rpartition("-")[2]).isdecimal())
    done = sorted(number for number in found if number < num_shards)
    if len(done) < num_shards and not (unfinished_ok and done):
        raise DataError(
            f"{folder}: {num_shards - len(done)} of {num_shards} shards are not done; start the "
            "run again to finish it, or read what there is with unfinished_ok: true"
        )
    return done


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield parse_json(line, keep_bytes=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
