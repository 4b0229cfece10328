"""Tar shards in the webdataset layout, read map-style: any sample at any time, by its position."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.files.cells import is_nothing, row_id
from lavis_lite.data.files.encodings import decode_text
from lavis_lite.data.files.images import SUFFIXES
from lavis_lite.data.files.json_text import parse_json
from lavis_lite.data.files.rows import FileOptions, FileRows, PackedRows
from lavis_lite.data.files.tar_index import Members, find_shards, index_shard, packed_shards
from lavis_lite.data.files.tar_samples import samples_of
from lavis_lite.data.several_texts import draw_text, probabilities, text_fields
from lavis_lite.errors import ConfigError, DataError, listed, suggest

logger = logging.getLogger(__name__)
_MAX_OPEN = 64
_LOOKED_AT = 20


@registry.register("dataset", "webdataset")
class WebDataset(FileRows):
    """Tar shards of `KEY.jpg`, `KEY.txt`, `KEY.json` and the like; img2dataset's output as it is.

    Each shard's headers are read once, at the beginning; samples are then read by position, so
    that order and resume don't depend on workers or processes. The fields of `json` members travel
    along. The members of a sample need not follow each other. A cut shard is read as far as it
    goes; links, pickles, hidden files, paths that lead out of the archive and samples that come
    twice are left out; each with a warning, and in words in `problems`.

    Args:
        shards: a path, folder, URL, pattern (`*`, `{000..009}`), or a list of them.
        image: the extension of the images; `auto`: the first of a sample that is one.
        text: the extension of the texts, or `json:FIELD`. Of a list of captions there, training
            draws one each time, and evaluations read the first: one sample is one row.
        texts: in place of `text`, several of such with probabilities, as `{txt: 0.3,
            "json:caption_blip": 0.7}`, see the page "Several texts".
        image_id: the JSON field that says which samples show the same image; by default each
            sample has its own.
        cache: a folder that keeps the indices of the shards for the next run.
        missing_ok: go on without shards that are missing or no tar files.
        encoding: of texts that are neither UTF-8 nor UTF-16 with its mark, such as cp1252.
        options: as for `json`; `where` and `fold` read the texts once.

    Raises:
        DataError: shards that are missing, none or no tar files, an address that would run a
            command.
    """

    def __init__(
        self,
        shards: str | list[str],
        image: str = "auto",
        text: str = "txt",
        image_id: str | None = None,
        cache: str | None = None,
        missing_ok: bool = False,
        *,
        encoding: str | None = None,
        texts: dict[str, Any] | None = None,
        **options: Unpack[FileOptions],
    ):
        if texts is not None and text != "txt":
            raise ConfigError("webdataset: `text` and `texts` say both where the texts are")
        self._shares = {text: 1.0} if texts is None else probabilities(texts, "webdataset.texts")
        self.augment = draw_text
        self._paths, missing = find_shards(shards, missing_ok)
        first = self._paths[0]
        self.name = first.stem if len(self._paths) == 1 else first.parent.name
        self.problems: list[str] = []
        for shard in missing:
            self._warn(f"{shard}: the shard is missing")
        for folder in [shards] if isinstance(shards, str) else shards:
            if packed := packed_shards(Path(folder)):
                self._warn(
                    f"{folder}: {len(packed)} compressed shards are not read, such as"
                    f" {packed[0].name}; unpack them to read by position"
                )
        self._image_extension, self._image_id = image, image_id
        self._encoding = encoding
        self._names = _shard_names(self._paths)
        never = Counter[str]()
        self._samples = PackedRows(self._index(cache, missing_ok, never))
        self._never = dict(never)
        self._files: OrderedDict[int, int] = OrderedDict()
        if not len(self._samples):
            raise DataError(f"{shards}: no samples in {len(self._paths)} shards")
        self._check_text()
        if texts is not None:
            self._check_fields()
        self._finish(**options)

    @property
    def files(self) -> list[Path]:
        """The shards, in order."""
        return self._paths

    def _index(
        self, cache: str | None, missing_ok: bool, never: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        for shard, path in enumerate(self._paths):
            try:
                index = index_shard(path, cache)
            except DataError as error:
                if not missing_ok:
                    raise DataError(f"{error}. To go on without: missing_ok: true") from None
                self._warn(f"{error}; the shard is left out")
                continue
            if index.cut:
                self._warn(
                    f"{path}: {index.cut}; the shard was cut, {len(index.samples)} samples are read"
                )
            for reason, number in index.refused.items():
                self._warn(f"{path}: {number} members are not read: {reason}")
            never.update({f"members: {why}": n for why, n in index.refused.items()})
            for first, every in index.samples:
                parts = samples_of(first, every) if self._splits(every) else [(first, every)]
                for key, members in parts:
                    yield {"shard": shard, "key": key, "members": members}

    def _splits(self, members: Members) -> bool:
        """Tell whether keys may hold dots: not where an extension with some is asked for."""
        dotted = any("." in extension for extension in members)
        asked = any("." in name for name in self._shares)
        return dotted and self._image_extension == "auto" and not asked

    def _warn(self, problem: str) -> None:
        self.problems.append(problem)
        logger.warning("%s", problem)

    def _check_text(self) -> None:
        """An extension that no sample has is a mistake in the config, not a bad sample."""
        asked = ["json" if name.startswith("json:") else name for name in self._shares]
        seen: dict[str, None] = {}
        for number in range(min(100, len(self._samples))):
            seen |= dict.fromkeys(self._samples[number]["members"])
        kinds = [*(("text", extension) for extension in asked), ("image", self._image_extension)]
        for what, extension in kinds:
            if extension not in ("auto", "", *seen):
                raise DataError(
                    f"{self._paths[0]}: no {what} {extension!r} in the first samples."
                    f"{suggest(extension, seen)} They have: {listed(seen)}"
                )

    def _check_fields(self) -> None:
        """Refuse a source of texts that is a field of no `json` member: it would never be drawn."""
        asked = [name for name in self._shares if name.startswith("json:")]
        seen: dict[str, None] = {}
        for number in range(min(_LOOKED_AT, len(self._samples))):
            sample = self._samples[number]
            if asked and "json" in sample["members"]:
                with contextlib.suppress(DataError):  # a damaged sample, which reading it tells
                    seen |= dict.fromkeys(f"json:{name}" for name in self._json(sample))
        for name in asked:
            if name not in seen:
                raise DataError(
                    f"{self._paths[0]}: no {name!r} in the first samples."
                    f"{suggest(name, seen)} They have: {listed(seen)}"
                )

    def _count(self) -> int:
        return len(self._samples)

    def _annotation(self, number: int) -> dict[str, Any]:
        return self._texts(self._samples[number])

    def _row(self, number: int) -> dict[str, Any]:
        sample = self._samples[number]
        return {"image": self._picture(sample), **self._texts(sample)}

    def _texts(self, sample: dict[str, Any]) -> dict[str, Any]:
        members: Members = sample["members"]
        fields = self._json(sample) if "json" in members else {}
        found = {name: self._texts_at(name, sample, fields) for name in self._shares}
        several = sum(map(len, found.values())) > 1
        key = f"{self._names[sample['shard']]}/{sample['key']}"
        shared = fields.get(self._image_id) if self._image_id else None
        return {
            **{name: value for name, value in fields.items() if name != "image"},
            "text_input": next((texts[0] for texts in found.values() if texts), ""),
            **(text_fields(found, self._shares) if several else {}),
            "image_id": key if shared is None else str(row_id(shared)),
            "key": key,
        }

    def _texts_at(self, name: str, sample: dict[str, Any], fields: dict[str, Any]) -> list[str]:
        """The texts that a sample has by an extension, or in a field of its `json` member."""
        found: object
        if name.startswith("json:"):
            found = fields.get(name.removeprefix("json:"))
        else:
            where = f"{self._names[sample['shard']]}/{sample['key']}.{name}"
            data = self._read(sample, name) if name in sample["members"] else b""
            found = decode_text(data, where, self._encoding)
        texts = found if isinstance(found, list) else [found]
        for text in texts:
            if isinstance(text, list | dict):
                raise DataError(f"damaged text: {name} is a {type(text).__name__}, not a text")
        return ["" if is_nothing(text) else str(text).strip() for text in texts]

    def _json(self, sample: dict[str, Any]) -> dict[str, Any]:
        try:
            where = f"{self._names[sample['shard']]}/{sample['key']}.json"
            fields = parse_json(decode_text(self._read(sample, "json"), where, self._encoding))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"damaged json: {error}") from None
        if not isinstance(fields, dict):
            raise DataError(f"damaged json: a {type(fields).__name__}, not an object")
        return fields

    def _picture(self, sample: dict[str, Any]) -> bytes:
        members: Members = sample["members"]
        extension = self._image_extension
        if extension == "auto":
            extension = next((one for one in members if f".{one}" in SUFFIXES), "")
        if extension not in members:
            raise DataError(f"no image: the sample has {listed(members)}")
        return self._read(sample, extension)

    def _read(self, sample: dict[str, Any], extension: str) -> bytes:
        offset, size = sample["members"][extension]
        data = os.pread(self._file(sample["shard"]), size, offset)
        if len(data) < size:
            raise DataError(f"truncated shard: {self._paths[sample['shard']]} has shrunk")
        return data

    def _file(self, shard: int) -> int:
        """An open descriptor; forked workers can share it, as each read gives its position."""
        if shard not in self._files:
            if len(self._files) >= _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
            self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
        self._files.move_to_end(shard)
        return self._files[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # descriptors mean nothing elsewhere

    def __del__(self) -> None:
        for descriptor in self.__dict__.get("_files", {}).values():
            os.close(descriptor)


def _shard_names(paths: list[Path]) -> list[str]:
    """A name for each shard, for keys: its stem, with its folder where stems repeat."""
    stems = Counter(path.stem for path in paths)
    return [
        path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}" for path in paths
    ]
