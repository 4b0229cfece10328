"""The images of a folder and those below it: what is taken, and what is left out by which rule."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from lavis_lite.data.files.images import SUFFIXES

HIDDEN = "hidden: the name begins with a dot"
LOOPED = "linked folders that are read already"
# Named as pictures; nothing here decodes them.
_FOREIGN = {
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".svgz", ".psd", ".psb", ".eps", ".ai", ".ico"),
    *(".tga", ".dds", ".exr", ".hdr", ".pcx", ".sgi", ".xcf", ".icns", ".wmf", ".emf", ".jxr"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
}


def is_image_name(name: str) -> bool:
    """Tell whether a file is taken for an image by its name; hidden ones are not."""
    return not name.startswith(".") and _suffix(name) in SUFFIXES


@dataclass
class ImageFiles:
    """The images of a folder.

    Attributes:
        paths: below the folder, sorted by their parts.
        left_out: rule -> files that look like images and are not taken, and linked folders.
        unreadable: folders that could not be listed -> why.
    """

    paths: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)

    def problems(self, folder: str | Path) -> list[str]:
        """Return the folders that could not be listed, in words."""
        return [
            f"{Path(folder, name)}: a folder that is not read: {why}"
            for name, why in self.unreadable.items()
        ]


def list_images(folder: str | Path) -> ImageFiles:
    """List the images of a folder and of those below it.

    Links to folders are followed, once each: a loop ends, and of several links to one folder the
    first in order counts, after the folder itself. What begins with a dot is no data (checkpoints
    of notebooks, `._` files of macOS); if it looks like an image it is counted.
    """
    listing = ImageFiles()
    root = os.fspath(folder)
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:  # links wait until everything that is really here is read
        links: list[str] = []
        for start in waiting:
            _walk(root, start, False, seen, links, listing)
        waiting = sorted(links)
    listing.paths.sort(key=lambda path: path.split(os.sep))
    return listing


def _walk(
    root: str,
    below: str,
    hidden: bool,
    seen: set[tuple[int, int]],
    links: list[str],
    found: ImageFiles,
) -> None:
    folders = [(below, hidden)]
    while folders:
        here, hidden = folders.pop()
        path = os.path.join(root, here)
        try:
            state = os.stat(path)
            if (state.st_dev, state.st_ino) in seen:
                found.left_out[LOOPED] += 1
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    name, concealed = os.path.join(here, entry.name), hidden or entry.name[0] == "."
                    if not _is_folder(entry):
                        _sort_in(name, concealed, found)
                    elif not entry.is_symlink():
                        folders.append((name, concealed))
                    elif not concealed:
                        links.append(name)
        except OSError as error:
            found.unreadable[here] = str(error.strerror)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _sort_in(name: str, hidden: bool, found: ImageFiles) -> None:
    suffix = _suffix(name)
    if suffix not in SUFFIXES and suffix not in _FOREIGN:
        return
    if hidden:
        found.left_out[HIDDEN] += 1
    elif suffix in _FOREIGN:
        found.left_out[f"{suffix} is not read"] += 1
    else:
        found.paths.append(name)


def names_and_rest(found: ImageFiles) -> str:
    """Say how images are named, and what a folder without them has instead, for messages."""
    others = ", ".join(f"{number} ({rule})" for rule, number in found.left_out.items())
    instead = f"; left out: {others}" if others else ""
    return f"({', '.join(sorted(SUFFIXES))}){instead}"
