"""Cards of published datasets: what to get and where to put it. Imports no torch.

They stand in the ``datasets.yaml`` beside a package's zoo.yaml; that file's head says how.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DataError, DownloadError, UnknownName, suggest
from lavis_lite.io import paths

FILE = "datasets.yaml"
ROOT = "data"  # the folder that files of cards are looked for in


@dataclass(frozen=True)
class AnnotationFile:
    """A file of annotations: below the data folder, and where it comes from."""

    file: str
    url: str | None = None
    md5: str | None = None


@dataclass(frozen=True)
class Images:
    """A folder of images below the data folder: examples of its files, and where to get them."""

    folder: str
    holds: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    note: str | None = None


@dataclass(frozen=True)
class DatasetCard:
    """A published dataset.

    Attributes:
        name: as it is registered.
        summary: in a line.
        task: what it is for.
        reference: whom to cite.
        licence: a note on terms of use; the site has the last word.
        site: where it is published.
        format: of the annotations, in words.
        annotations: split -> files.
        images: their folder; None where shards hold them.
        shards: a pattern of tar shards below the data folder, instead of annotations and images.
        also: other names, those of LAVIS.
    """

    name: str
    summary: str
    task: str
    reference: str
    licence: str
    site: str
    format: str
    annotations: Mapping[str, list[AnnotationFile]]
    images: Images | None = None
    shards: str | None = None
    also: list[str] = field(default_factory=list)

    @property
    def splits(self) -> tuple[str, ...]:
        """Its splits, the default one first."""
        return tuple(self.annotations)

    def check_split(self, split: str | None) -> str:
        """The split that is meant: the first if none is named.

        Raises:
            ConfigError: it has no such split.
        """
        split = split or self.splits[0]
        if split not in self.splits:
            raise ConfigError(
                f"{self.name}: no split {split!r}.{suggest(split, self.splits)}"
                f" Known: {list(self.splits)}"
            )
        return split

    def files(self, split: str, given: str | list[str] | None, root: str) -> list[str]:
        """Local files with the annotations of a split.

        Args:
            split: one of ``splits``.
            given: these files, or the folder that has files of the usual names; None looks below
                ``root``, and fetches what is not there.
            root: the data folder.

        Raises:
            DataError: a file is missing and has no address, or it is not the published one.
            DownloadError: it could not be fetched.
        """
        if given is not None and not (isinstance(given, str) and Path(given).is_dir()):
            return [given] if isinstance(given, str) else given
        found = []
        for file in self.annotations[split]:
            usual = Path(root, file.file) if given is None else Path(given, Path(file.file).name)
            found.append(str(usual) if usual.is_file() else self._fetch(file, split, usual))
        return found

    def _fetch(self, file: AnnotationFile, split: str, usual: Path) -> str:
        if file.url is None:
            raise DataError(
                f"{self.name}, split {split}: no annotations at {usual}; {self.advice()}"
            )
        try:
            local = paths.local_path(file.url)
        except DownloadError as error:
            raise DownloadError(f"{error}; or put it at {usual}; {self.advice()}") from error
        if file.md5 is not None and _md5(local) != file.md5:
            raise DataError(
                f"{self.name}, split {split}: {local} is not the published {Path(file.file).name}"
                f" (md5 {_md5(local)}, published {file.md5}); delete it to fetch it again"
            )
        return local

    def images_folder(self, given: str | None, root: str) -> str:
        """The folder of the images: the given one, or the usual one below ``root``.

        Raises:
            DataError: it is not there.
        """
        assert self.images is not None
        folder = Path(root, self.images.folder) if given is None else Path(paths.here(given))
        if not folder.is_dir():
            raise DataError(f"{self.name}: images: {folder}: no such folder; {self.advice()}")
        return str(folder)

    def advice(self) -> str:
        """Tell the user where to find out more."""
        return f"`lavis-lite data info {self.name}` says what to get and where to put it"

    def __str__(self) -> str:
        return "\n".join(_described(self))


def names() -> list[str]:
    """The sorted names of all datasets that have a card."""
    return sorted(_cards())


def card(name: str) -> DatasetCard:
    """The card of a dataset, by its name or one that LAVIS has for it.

    Raises:
        UnknownName: no such card; the message lists the nearest.
    """
    known = _cards()
    for found in known.values():
        if name == found.name or name in found.also:
            return found
    raise UnknownName(
        f"no dataset card {name!r}.{suggest(name, known)}\n  known: {', '.join(known)}"
    )


def registered_name(name: str) -> str:
    """The name that a dataset is registered by, for one that LAVIS has for it."""
    return next((found.name for found in _cards().values() if name in found.also), name)


@functools.cache
def _cards() -> dict[str, DatasetCard]:
    return {found.name: found for package in registry.index.zoos for found in _of(package)}


def _of(package: str) -> Iterator[DatasetCard]:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE
        if path.is_file():
            yield from _read(path)


def _read(path: Path) -> Iterator[DatasetCard]:
    from omegaconf import OmegaConf

    contents: Any = OmegaConf.to_container(OmegaConf.load(path))
    known = {own.name for own in dataclasses.fields(DatasetCard)}
    for name, entry in contents["datasets"].items():
        if unknown := sorted(set(entry) - known):
            raise ConfigError(f"{path}: {name}: unknown key {unknown[0]!r}")
        annotations = {
            split: [AnnotationFile(**file) for file in files]
            for split, files in entry["annotations"].items()
        }
        images = Images(**entry["images"]) if "images" in entry else None
        yield DatasetCard(**{**entry, "name": name, "annotations": annotations, "images": images})


def _md5(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _described(card: DatasetCard) -> Iterator[str]:
    """The lines of ``lavis-lite data info``."""
    yield f"{card.name}: {card.summary}"
    for name in ("task", "site", "licence", "reference", "format"):
        text = textwrap.wrap(
            getattr(card, name), 84, break_long_words=False, break_on_hyphens=False
        )
        yield f"  {name + ':':<11}" + f"\n{'':<13}".join(text)
    if card.also:
        yield f"  {'LAVIS:':<11}{', '.join(card.also)}"
    if any(card.annotations.values()):
        yield ""
        yield "annotations, fetched where they have an address and are not there:"
        for split, files in card.annotations.items():
            for file in files:
                yield f"  {split:<6} {ROOT}/{file.file}"
                yield from (f"         {text}" for text in (file.url,) if text)
    if card.shards:
        yield ""
        yield f"shards, which you make or get (pip install img2dataset): {ROOT}/{card.shards}"
    if card.images:
        yield ""
        yield f"images, which you get: {ROOT}/{card.images.folder}"
        yield from (f"  such as {file}" for file in card.images.holds)
        yield from (f"  from {url}" for url in card.images.urls)
        yield from (f"  {note}" for note in (card.images.note,) if note)
        if any(url.endswith((".zip", ".tar", ".tar.gz")) for url in card.images.urls):
            yield f"  unpack with: lavis-lite data unpack FILE {ROOT}/{card.images.folder}"
    yield ""
    yield "in a config; `root` is the folder that stands for data/:"
    yield f"  {{name: {card.name}, split: {card.splits[-1]}{_argument(card)}}}"


def _argument(card: DatasetCard) -> str:
    if card.images and not card.shards:
        return f", images: {ROOT}/{card.images.folder}"
    return f', shards: "{ROOT}/{card.shards}"'
