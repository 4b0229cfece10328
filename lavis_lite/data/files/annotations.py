"""A user's own image-text pairs: annotation files, or a folder of images with texts beside them."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.files.bad_rows import BadRow
from lavis_lite.data.files.cells import is_nothing, row_id
from lavis_lite.data.files.encodings import ADVICE, has_bytes
from lavis_lite.data.files.rows import FileOptions, FileRows, PackedRows
from lavis_lite.data.files.tables import foreign, read
from lavis_lite.data.several_texts import draw_text, probabilities, text_fields
from lavis_lite.errors import ConfigError, DataError, listed, suggest
from lavis_lite.io.paths import here, local_path

IMAGE_COLUMNS = ("image", "image_path", "file_name", "filename", "filepath", "path", "img")
TEXT_COLUMNS = ("caption", "text", "text_input", "sentence", "captions", "sentences", "title")
_LOOKED_AT = 20


class Annotations(FileRows):
    """Image-text pairs from annotation files; a list of captions becomes a row for each.

    LAVIS's annotation files are read as they are: a list of {image, caption, image_id}.

    Args:
        path: the file, a URL, a glob pattern, or a list of them.
        images: the folder that relative image paths start from; by default that of the file.
        image: the column of the images; by default the first there is of image, image_path,
            file_name, filename, filepath, path, img. Its values are paths or an image's bytes.
        text: the column of the texts, of strings or lists of them; by default the first of
            caption, text, text_input, sentence, captions, sentences, title. `""`: no texts.
        texts: in place of `text`, columns with probabilities, `{caption: 0.3, caption_blip: 0.7}`:
            an image is one row, and training draws one of its texts each time, see the page
            "Several texts". Evaluations read the first.
        encoding: of a text file that is neither UTF-8 nor UTF-16 with its mark, such as cp1252.
        key: the column of keys, made unique where they repeat; by default `key` where there is one,
            else rows are numbered.
        image_id: the column that says which rows show the same image; by default `image_id`
            where there is one, else the path of the image.
        split: keep the rows whose column `split` has this value, or one of a list of values.
        options: how images are decoded and which rows are taken, as of every dataset of files,
            see `FileOptions`.

    Raises:
        DataError: missing files or columns, or nothing in them.
    """

    kind: str
    _mixes_ids = False
    _shares: Mapping[str, float] = MappingProxyType({})  # column of texts -> its probability

    def __init__(
        self,
        path: str | list[str],
        images: str | None = None,
        image: str | None = None,
        text: str | None = None,
        key: str | None = None,
        image_id: str | None = None,
        split: str | list[str] | None = None,
        *,
        encoding: str | None = None,
        texts: dict[str, Any] | None = None,
        **options: Unpack[FileOptions],
    ):
        self._share(texts, text)
        rows = read(path, self.kind, encoding=encoding)
        self._read(rows, path, images, (image, text, key, image_id))
        self._finish(split, **options)

    def _share(self, texts: dict[str, Any] | None, text: str | None) -> None:
        if texts is None:
            return
        if text is not None:
            raise ConfigError(f"{self.kind}: `text` and `texts` say both where the texts are")
        self._shares = probabilities(texts, f"{self.kind}.texts")
        self.augment = draw_text

    def _read(
        self,
        rows: Iterator[dict[str, Any] | BadRow],
        path: str | list[str],
        folder: str | None,
        columns: tuple[str | None, ...],
        name: str | None = None,
    ) -> None:
        first = path if isinstance(path, str) else path[0]
        self.name = name or Path(first).name.split(".")[0]
        beside = Path(local_path(first)).parent
        self._folder = beside if folder is None else Path(here(folder))
        if folder is not None and not self._folder.is_dir():
            raise DataError(f"images: {folder}: no such folder")
        with foreign(first, "rows of image-text pairs"):
            expand = Expansion(self.name, self._shares)
            self._rows = PackedRows(self._without_bad(expand(rows, str(path), columns)))
        self._mixes_ids = expand.mixes_ids
        self._refuse_nothing(f"{path}")
        self._check_images()

    def _finish(
        self,
        split: str | list[str] | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        if split:
            options["where"] = {**(options.get("where") or {}), "split": split}
        super()._finish(**options)

    def _count(self) -> int:
        return len(self._rows)

    def _row(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        image = row["image"]
        if image and isinstance(image, str) and "://" not in image:
            row["image"] = os.path.join(self._folder, image)
        if self._mixes_ids and row["image_id"] is not None:
            row["image_id"] = row_id(row["image_id"])
        if row["image_id"] is None:
            # The whole path: 0001.jpg of another dataset is another image.
            row["image_id"] = row["image"] if image and isinstance(image, str) else row["key"]
        return row

    def _check_images(self) -> None:
        """A wrong folder is better known before training than after its first hundred rows."""
        numbers = (number for number in range(len(self._rows)) if number not in self._bad)
        found = [self._rows[number]["image"] for number in itertools.islice(numbers, _LOOKED_AT)]
        paths = [os.path.join(self._folder, one) for one in found if isinstance(one, str) and one]
        if len(paths) == len(found) and not any(os.path.exists(path) for path in paths):
            raise DataError(
                f"{self.name}: none of the first {len(paths)} images is there, such as {paths[0]};"
                " relative paths start from the folder `images`"
            )


@registry.register("dataset", "json")
class Json(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    The file is a JSON list of objects, or has the layout of COCO's captions or of Karpathy's
    splits, whose `split` must be given (train, restval, val, test; the first two are what one
    trains on).
    """
    kind = "json"

    def _finish(self, split: str | list[str] | None = None, **options: Unpack[FileOptions]) -> None:
        numbers = (number for number in range(len(self._rows)) if number not in self._bad)
        splits = Counter(str(self._rows[number].get("split")) for number in numbers)
        if not split and {"train", "test"} <= splits.keys():
            raise DataError(f"{self.name}: holds several splits; give split: one of {dict(splits)}")
        super()._finish(split, **options)


@registry.register("dataset", "jsonl")
class JsonLines(Annotations):
    __doc__ = Annotations.__doc__
    kind = "jsonl"


@registry.register("dataset", "csv")
class Csv(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    The file has a header. Its fields are separated by `delimiter`: by default by tabs where it is
    named .tsv, else by whichever of comma, tab, semicolon and bar the header has most. Between tabs
    every line is a row, and a quote that nothing closes is a character.
    """
    kind = "csv"

    def __init__(
        self,
        path: str | list[str],
        images: str | None = None,
        image: str | None = None,
        text: str | None = None,
        key: str | None = None,
        image_id: str | None = None,
        split: str | list[str] | None = None,
        *,
        encoding: str | None = None,
        delimiter: str | None = None,
        texts: dict[str, Any] | None = None,
        **options: Unpack[FileOptions],
    ):
        self._share(texts, text)
        rows = read(path, self.kind, delimiter, encoding)
        self._read(rows, path, images, (image, text, key, image_id))
        self._finish(split, **options)


@registry.register("dataset", "parquet")
class Parquet(Annotations):
    __doc__ = f"""{Annotations.__doc__}
    Images inside the file (a column of bytes, or the hub's {{bytes, path}}) are kept in memory.
    """
    kind = "parquet"


class Expansion:
    """Rows of annotation files to rows of a dataset: one for each caption, with keys of their own.

    Args:
        name: of the dataset, which keys of rows without their own begin with.
        shares: columns of texts with probabilities; where there are some, a row stays one.

    Attributes:
        number: captions so far.
    """

    def __init__(self, name: str, shares: Mapping[str, float] = MappingProxyType({})):
        self._name, self.number, self._keys = name, 0, Counter[str]()
        self._shares = shares
        self._kinds: set[bool] = set()  # of image ids that are numbers: whether written as texts

    @property
    def mixes_ids(self) -> bool:
        """Tell whether some numbers of images were written as texts and others not."""
        return len(self._kinds) == 2

    def __call__(
        self,
        rows: Iterable[dict[str, Any] | BadRow],
        where: str,
        columns: tuple[str | None, ...],
    ) -> Iterator[dict[str, Any] | BadRow]:
        """Yield the rows of one source; numbers and keys go on where the last one ended.

        Args:
            rows: as they were read.
            where: what was read, for messages.
            columns: of image, text, key and image id, None where they are to be found.
        """
        image, text, key, image_id = columns
        has_columns = False
        for place, row in enumerate(rows):
            if isinstance(row, BadRow):
                yield row
                continue
            if not has_columns:
                image = _column("image", image, IMAGE_COLUMNS, row, where)
                text = self._text_column(text, row, where)
                has_columns = True
            at = getattr(row, "place", f"{where}: row {place}")
            needed = [column for column in (image, text, key, image_id) if column]
            if missing := [column for column in needed if column not in row]:
                yield BadRow(
                    f"damaged row: {at}: row {place} has no {missing[0]!r}."
                    f"{suggest(missing[0], row)} It has: {listed(row)}"
                )
                continue
            yield from self._row(row, at, str(image), text, (key, image_id))

    def _text_column(self, text: str | None, row: dict[str, Any], where: str) -> str:
        """Return the column of the texts; no name where there are none, or several columns."""
        for name in self._shares:
            _column("texts", name, (), row, where)
        return "" if self._shares or text == "" else _column("text", text, TEXT_COLUMNS, row, where)

    def _row(
        self,
        row: dict[str, Any],
        at: str,
        image: str,
        text: str | None,
        ids: tuple[str | None, str | None],
    ) -> Iterator[dict[str, Any] | BadRow]:
        given_key, shared = row.get(ids[0] or "key"), row.get(ids[1] or "image_id")
        own = (image, text, *self._shares)
        others = {name: value for name, value in row.items() if name not in own}
        several = {name: _captions(row.get(name)) for name in self._shares}
        mixed = text_fields(several, self._shares)
        for caption in _captions(row[text]) if text else [mixed.get("text_input", "")]:
            self.number += 1
            broken = next(filter(has_bytes, itertools.chain([caption], *several.values())), None)
            if broken is not None:
                yield BadRow(f"damaged text: {at}: {ADVICE}: {broken[:60]!r}")
                continue
            yield {
                **others,
                "image": _picture(row[image]),
                "text_input": caption,
                **mixed,
                "image_id": self._image_id(shared),
                "key": self._key(given_key),
            }

    def _image_id(self, shared: object) -> int | str | None:
        if is_nothing(shared):
            return None
        number = row_id(shared)
        if isinstance(number, int):
            self._kinds.add(isinstance(shared, str))
        return shared if isinstance(shared, str) else number

    def _key(self, own: object) -> str:
        if is_nothing(own):
            return f"{self._name}-{self.number - 1:07d}"
        self._keys[key := str(own)] += 1
        return key if self._keys[key] == 1 else f"{key}#{self._keys[key]}"


def _column(
    what: str, given: str | None, known: tuple[str, ...], row: dict[str, Any], where: str
) -> str:
    present = [column for column in ([given] if given else known) if column in row]
    if present:
        return present[0]
    missing = repr(given) if given else f"column of the {what}s ({', '.join(known)})"
    raise DataError(
        f"{where}: no {missing}.{suggest(given or what, row)} Columns: {listed(row)}."
        f" Name it with {what}:"
    )


def _picture(value: object) -> object:
    if isinstance(value, dict):  # as the hub stores images
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes) else "" if is_nothing(value) else str(value)


def num_captions(row: dict[str, Any]) -> int:
    """Return how many rows of a dataset a row of an annotation file makes."""
    return len(_captions(next((row[name] for name in TEXT_COLUMNS if name in row), None)))


def captions_of(row: dict[str, Any], where: str, column: str | None = None) -> list[str]:
    """Return the texts of a row of an annotation file.

    Args:
        row: as it was read.
        where: the file, for messages.
        column: of the texts; by default the first one that datasets would read.

    Raises:
        DataError: no such column.
    """
    return _captions(row[_column("text", column, TEXT_COLUMNS, row, where)])


def _captions(value: object) -> list[str]:
    """Each caption of a row; none at all is an empty one, so that no row is lost in silence."""
    if isinstance(value, list | tuple):
        return [caption for one in value for caption in _captions(one)] or [""]
    if isinstance(value, dict):
        value = next((value[name] for name in ("raw", *TEXT_COLUMNS) if name in value), None)
    return ["" if is_nothing(value) else str(value)]
