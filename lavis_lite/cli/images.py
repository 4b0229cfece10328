"""The images that a command is given: found, read a few ahead, and none lost for another's sake."""

from __future__ import annotations

import functools
import glob
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lavis_lite.data.files.image_files import list_images, names_and_rest
from lavis_lite.errors import DataError, suggest
from lavis_lite.models.pipelines.reading import open_image, read_ahead


class ImageBatch(NamedTuple):
    """Images that could be read: their names, (B, 3, H, W) pixels, and numbers in the listing."""

    names: list[str]
    pixels: Tensor
    numbers: list[int]


class Images:
    """Every image that the words of a command line mean, in their order, each once.

    Args:
        words: paths, folders, glob patterns, URLs.
        exif: turn photographs as their EXIF orientation says.

    Raises:
        DataError: they mean no file at all.

    Attributes:
        names: of the images, as they are reported.
        problems: what could not be found or read -> why.
        left_out: rule -> files of folders that look like images and are not taken.
        failures: images that were read and for which something failed -> why.
    """

    def __init__(self, words: Sequence[str], exif: bool = False) -> None:
        self.exif = exif
        self.problems: dict[str, str] = {}
        self.left_out = Counter[str]()
        self.failures: dict[str, list[str]] = {}
        found: dict[str, None] = {}
        for word in words:
            try:
                found |= dict.fromkeys(find(word, self.left_out, self.problems))
            except DataError as error:
                self.problems[word] = str(error)
        self.names = list(found)
        if not self.names:
            raise DataError("\n".join(f"{word}: {why}" for word, why in self.problems.items()))

    def batches(
        self,
        process: Callable[[Image.Image], Tensor],
        size: int,
        numbers: Iterable[int] | None = None,
    ) -> Iterator[ImageBatch]:
        """The images in batches; what cannot be read is noted in ``problems`` and left out.

        Args:
            process: from a picture to (3, H, W).
            size: images per batch, at most.
            numbers: which images, taken as they are needed; by default all.
        """
        chosen = range(len(self.names)) if numbers is None else numbers
        read = functools.partial(self._read, process)
        for batch in read_ahead(chosen, read, size):
            yield from self._batch(batch)

    def _batch(self, read: list[tuple[int, Tensor | str]]) -> Iterator[ImageBatch]:
        pixels, numbers = [], []
        for number, one in read:
            if isinstance(one, str):
                self.problems[self.names[number]] = one
            else:
                pixels.append(one)
                numbers.append(number)
        if pixels:
            yield ImageBatch([self.names[n] for n in numbers], torch.stack(pixels), numbers)

    def open(self, name: str) -> Image.Image:
        """One of the images; see ``open_image``."""
        return open_image(name, self.exif)

    def _read(self, process: Callable[[Image.Image], Tensor], number: int) -> Tensor | str:
        try:
            return process(self.open(self.names[number]))
        except DataError as error:
            return str(error)

    def report(self) -> str:
        """List files that could not be read or failed, with reasons, and other files in folders."""
        total = len({*self.names, *self.problems})
        lines = []
        if self.problems:
            lines.append(f"{len(self.problems)} of {total} could not be read:")
            lines += [f"  {name}: {why}" for name, why in self.problems.items()]
        if self.failures:
            lines.append(f"{len(self.failures)} of {total} could be read, and failed:")
            lines += [f"  {name}: {'; '.join(why)}" for name, why in self.failures.items()]
        if self.left_out:
            others = ", ".join(f"{number} ({rule})" for rule, number in self.left_out.items())
            lines.append(f"left out of folders: {others}")
        return "\n".join(lines)

    def set_aside(self) -> dict[str, str]:
        """Name -> why, of what could not be found or read, or failed."""
        failed = {name: "; ".join(why) for name, why in self.failures.items()}
        return {**self.problems, **failed}

    def failed(self, name: str, why: str) -> None:
        """Note what failed for an image that was read; others go on."""
        reasons = self.failures.setdefault(name, [])
        if why not in reasons:
            reasons.append(why)


def find(
    word: str, left_out: Counter[str] | None = None, unreadable: dict[str, str] | None = None
) -> list[str]:
    """The image files that one word means, sorted where it means several.

    A file is taken whatever its name; of a folder and below it those that are named as images and
    are not hidden. Links to folders are followed.

    Args:
        word: path, folder, glob pattern or URL.
        left_out: takes what folders have besides, see ``list_images``.
        unreadable: takes folders that cannot be listed -> why.

    Raises:
        DataError: no such file, nothing that matches, or no images in a folder.
    """
    if not word.strip():
        raise DataError("an empty word is no image; `.` is this folder")
    if "://" in word:
        return [word]
    path = Path(word).expanduser()
    if path.is_dir():
        inside = list_images(path)
        if left_out is not None:
            left_out.update(inside.left_out)
        if unreadable is not None:
            unreadable |= {str(path / name): why for name, why in inside.unreadable.items()}
        if not inside.paths:
            raise DataError(f"no images in this folder {names_and_rest(inside)}")
        return [str(path / name) for name in inside.paths]
    if path.exists():
        return [word]
    if glob.has_magic(word):
        matching = sorted(glob.glob(str(path), recursive=True))
        if not matching:
            raise DataError("no file matches")
        return [name for match in matching for name in find(match, left_out, unreadable)]
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"no such file.{suggest(path.name, beside)}")
