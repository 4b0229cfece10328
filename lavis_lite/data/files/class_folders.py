"""Images in a folder per class; ImageNet is laid out so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from lavis_lite import registry
from lavis_lite.data.files.encodings import read_text
from lavis_lite.data.files.image_files import is_image_name, list_images
from lavis_lite.data.files.rows import FileOptions, FileRows, PackedRows
from lavis_lite.data.files.tables import find, load_json
from lavis_lite.data.published import cards
from lavis_lite.errors import DataError, suggest
from lavis_lite.io.packages import naming_torchvision
from lavis_lite.io.paths import here

_WORDNET = re.compile(r"n\d{8}")


@registry.register("dataset", "class_folders")
class ClassFolders(FileRows):
    """Images of a folder per class; `label` is the number of the class among the sorted folders.

    `class_names` has a name for each class, and `text_input` is that name. Folders and files whose
    names begin with a dot are no data; images beside the classes' folders belong to no class.

    Args:
        path: the folder of the classes' folders.
        classes: a file with the classes' names: lines of a folder and its names with commas
            between (`n01440764 tench, Tinca tinca`), of which the first is taken, or a JSON object
            folder -> name, or a JSON list in the order of the folders; by default the names of
            the folders.
        options: as for `json`.

    Raises:
        DataError: no such folder, no images in it, or a class without a name.
    """

    def __init__(
        self,
        path: str,
        classes: str | None = None,
        **options: Unpack[FileOptions],
    ):
        self._folder = Path(here(path))
        if not self._folder.is_dir():
            parent = self._folder.parent
            beside = [one.name for one in parent.iterdir()] if parent.is_dir() else []
            raise DataError(f"{path}: no such folder.{suggest(self._folder.name, beside)}")
        self.name = self._folder.name
        inside = [one for one in self._folder.iterdir() if not one.name.startswith(".")]
        folders = sorted(one.name for one in inside if one.is_dir())
        if not folders:
            raise DataError(f"{path}: no folders in it; each class has its own")
        self.class_names = self._names(folders, classes)
        never = Counter[str]()
        if loose := sum(is_image_name(one.name) and not one.is_dir() for one in inside):
            never["in no class's folder"] = loose
        self.problems: list[str] = []
        self._rows = PackedRows(self._labelled(folders, never))
        self._never = dict(never)
        if not len(self._rows):
            raise DataError(f"{path}: no images in its {len(folders)} folders")
        self._finish(**options)

    def _labelled(self, folders: list[str], never: Counter[str]) -> Iterator[dict[str, Any]]:
        for label, folder in enumerate(folders):
            listing = list_images(self._folder / folder)
            never.update(listing.left_out)
            self.problems += listing.problems(self._folder / folder)
            for path in listing.paths:
                yield {"image": f"{folder}/{path}", "label": label}

    def _names(self, folders: list[str], classes: str | None) -> list[str]:
        if classes is None:
            return folders
        return names_of(folders, find(classes)[0])

    def _count(self) -> int:
        return len(self._rows)

    def _row(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        return {
            "image": str(self._folder / row["image"]),
            "text_input": self.class_names[row["label"]],
            "label": row["label"],
            "image_id": row["image"],
            "key": row["image"],
        }


@registry.register("dataset", "imagenet")
class ImageNet(ClassFolders):
    """ImageNet's thousand classes, by default named as WordNet does.

    Where two classes have the same first name (crane) both are called by all of theirs. The names
    that CLIP's authors chose give higher accuracy; a file of them is a JSON list.

    Args:
        split: `val`, the only one with published labels.
        images: the folder of the classes' folders; by default `imagenet/val` below `root`.
        classes: as for `class_folders`.
        root: the folder of all data.
        options: as for `json`.

    Raises:
        DataError: as for `class_folders`.
    """

    splits = ("val",)

    def __init__(
        self,
        split: str | None = None,
        images: str | None = None,
        classes: str | None = None,
        root: str = cards.ROOT,
        **options: Unpack[FileOptions],
    ):
        card = cards.card("imagenet")
        card.check_split(split)
        folder = card.images_folder(images, root)
        super().__init__(folder, classes, **options)

    def _names(self, folders: list[str], classes: str | None) -> list[str]:
        if classes is not None or not all(map(_WORDNET.fullmatch, folders)):
            return super()._names(folders, classes)
        return _wordnet_names(folders)


def names_of(folders: list[str], file: Path) -> list[str]:
    """The names of classes, from a file as ``ClassFolders`` takes it.

    Raises:
        DataError: the file has no name for a class, or names for another number of them.
    """
    if file.suffix == ".json":
        named: Any = load_json(file)
        if isinstance(named, list):
            if len(named) != len(folders):
                raise DataError(f"{file}: {len(named)} names for {len(folders)} folders of classes")
            return [str(name) for name in named]
    else:
        lines = read_text(file).splitlines()
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
        named = {pair[0]: pair[-1].split(",")[0].strip() for pair in pairs}
    for folder in folders:
        if folder not in named:
            raise DataError(f"{file}: no name for the class {folder!r}.{suggest(folder, named)}")
    return [str(named[folder]) for folder in folders]


def _wordnet_names(folders: list[str]) -> list[str]:
    """The first name that WordNet has for each id, all of them where that is another class's."""
    with naming_torchvision():
        from timm.data import ImageNetInfo  # two seconds to import

    info = ImageNetInfo("imagenet-1k")
    known = {name: place for place, name in enumerate(info.label_names())}
    if unknown := [folder for folder in folders if folder not in known]:
        raise DataError(f"imagenet: no class {unknown[0]!r}; name the classes with classes: FILE")
    every = [info.index_to_description(known[folder]) for folder in folders]
    first = [names.split(",")[0] for names in every]
    times = Counter(first)
    return [one if times[one] == 1 else names for one, names in zip(first, every, strict=True)]
