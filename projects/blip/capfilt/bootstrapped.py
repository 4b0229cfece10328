"""Image-text pairs that a bootstrapping run wrote: web and synthetic texts with their scores."""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.choice import Choice
from lavis_lite.data.files.images import MAX_PIXELS, decode
from lavis_lite.data.files.rows import PackedRows, Rows
from lavis_lite.data.files.tables import foreign
from lavis_lite.data.files.tar_index import Members, index_shard
from lavis_lite.data.seeding import stable_hash
from lavis_lite.data.several_texts import draw_text
from lavis_lite.errors import ConfigError, DataError, suggest
from lavis_lite.io.paths import here
from lavis_lite.io.redaction import REDACTED
from lavis_lite.modules.interfaces import RowDataset
from lavis_lite.projects.blip.capfilt.layout import IMAGES, JOB, SHARDS, shard_name
from lavis_lite.projects.blip.capfilt.mixed_texts import MixedTexts
from lavis_lite.projects.blip.capfilt.moved_images import MovedImages
from lavis_lite.projects.blip.capfilt.reading import finished_shards, read_job
from lavis_lite.projects.blip.capfilt.tabulate import shard_records
from lavis_lite.projects.blip.selection.layout import is_selection
from lavis_lite.projects.blip.selection.reading import Selection

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

    A selection (the runner `select`) is read in the same way: the texts that it chose are the ones
    that are kept, whatever the run's filter said of them.

    With probabilities, `texts: {web: 0.3, synthetic: 0.7}`, an image is one row with all of its
    texts, and training draws one of them each time, see the page "Several texts".

    Args:
        path: the run's output folder, or that of a selection.
        texts: `kept`, `kept_web`, `kept_synthetic`; or, whatever the filter said, `web`,
            `synthetic`, `all`; or `web_at_random`, as many web texts as were kept, by chance: what
            a filter is to be compared with. Or sources of texts with their probabilities: `web`,
            `synthetic`, captioners by their names, and `kept_` before one for those of its texts
            that were kept; of a selection all are.
        unfinished_ok: read the shards that are done of a run that is not.
        images: where the images lie now, if the source's folder has moved since the run.
        choice: which rows are taken, as of every dataset, see `Choice`.

    Raises:
        ConfigError: on an unknown choice of texts.
        DataError: no such folder, shards that are not done, or no texts in them.
    """

    def __init__(
        self,
        path: str,
        texts: str | dict[str, Any] = "kept",
        unfinished_ok: bool = False,
        images: str | None = None,
        **choice: Unpack[Choice],
    ):
        self._mixed = None if isinstance(texts, str) else MixedTexts(texts)
        if not isinstance(texts, str):
            self.augment, texts = draw_text, "kept"
        elif texts not in _TEXTS:
            raise ConfigError(
                f"bootstrapped.texts: no {texts!r}.{suggest(texts, _TEXTS)} Known: {list(_TEXTS)}"
            )
        self._folder = Path(here(path))
        self.name = f"bootstrapped-{self._folder.name}-{'mixed' if self._mixed else texts}"
        self._selection = Selection(self._folder) if is_selection(self._folder) else None
        if self._selection is not None:
            if not texts.startswith("kept"):
                raise ConfigError(
                    f"bootstrapped.texts: {texts!r} of a selection; it has only texts that are "
                    f"kept. For the others read the run, {self._selection.records}"
                )
            self._folder = self._selection.records
            unfinished_ok = unfinished_ok or self._selection.manifest["unfinished_ok"]
        job = read_job(self._folder)
        self._source: dict[str, Any] = job["source"]
        numbers = finished_shards(self._folder, job["num_shards"], unfinished_ok)
        if self._selection is not None:  # of shards that were done then
            numbers = [n for part in self._selection.manifest["parts"] for n in part["shards"]]
        self._tars = {n: tar for n in numbers if (tar := self._path(n, IMAGES)).is_file()}
        self._texts = Counter[str]()
        with foreign(self._folder / SHARDS, "the output of a bootstrapping run"):
            rows = self._all(numbers, texts)
            if texts == "web_at_random":
                rows = _at_random(rows, self._all(numbers, texts), self._texts)
            self._rows = PackedRows(rows)
        if self._mixed is not None:
            self._mixed.check()
        self._never = dict(+self._texts)
        del self._keys, self._texts
        if not len(self._rows):
            raise DataError(f"{path}: no texts ({texts}) in its {len(numbers)} shards")
        arguments = {k: v for k, v in self._source.items() if k in ("exif", "max_pixels")}
        self._moved = MovedImages(self._source, images) if images else None
        self.decode = functools.partial(decode, **{"max_pixels": MAX_PIXELS, **arguments})
        self._choose(**choice)

    def _path(self, number: int, suffix: str) -> Path:
        return self._folder / SHARDS / f"{shard_name(number)}{suffix}"

    def _all(self, numbers: list[int], texts: str) -> Iterator[dict[str, Any]]:
        self._keys: set[str] = set()
        self._texts.clear()
        if self._selection is not None:
            for number, chosen in self._selection.places():
                yield from self._read(number, *_TEXTS[texts], chosen)
            return
        for number in numbers:
            yield from self._read(number, *_TEXTS[texts])

    def _read(
        self,
        number: int,
        web: bool,
        synthetic: bool,
        only_kept: bool,
        chosen: dict[int, set[int]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """A row for each wanted text of a shard; ``chosen`` are those of a selection, by row."""
        members = self._members(number)
        for record in shard_records(self._folder, number):
            shared = {
                **record["fields"],
                "image": record["image"],
                "image_id": record["image_id"],
                "index": record["index"],
            }
            if members is not None:
                shared["member"] = (number, members.get(f"{record['index']:09d}"))
            key = self._unique(record["key"], record["index"])
            if self._mixed is not None:
                of_run = None if chosen is None else chosen.get(record["index"], set())
                if fields := self._mixed.fields(record, of_run):
                    yield {**shared, **fields, "key": key}
                else:
                    self._texts["no text of the sources"] += 1
                continue
            for place, text_row in enumerate(_texts_of(record)):
                if chosen is not None:
                    text_row["kept"] = place in chosen.get(record["index"], ())
                is_asked_for = web if text_row["origin"] == "web" else synthetic
                if not is_asked_for:
                    self._texts[f"{text_row['origin']} texts, which are not asked for"] += 1
                elif not text_row["text_input"].strip():
                    self._texts["empty text"] += 1
                elif only_kept and not text_row["kept"]:
                    by = "filter" if chosen is None else "selection"
                    self._texts[f"not kept by the {by}"] += 1
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
