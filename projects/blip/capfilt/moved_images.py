"""Images of a bootstrapping run's source that lie in another folder than when it ran."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavis_lite.errors import DataError
from lavis_lite.io.paths import here


class MovedImages:
    """The paths of a source's images, in the folder where they lie now.

    Args:
        source: the component of the dataset that the run read.
        folder: where its images lie now, in place of its ``images``; of a source that names no
            such folder, in place of the one in which its file lies or which it is.

    Raises:
        DataError: no such folder.
    """

    def __init__(self, source: Mapping[str, Any], folder: str) -> None:
        self._folder = Path(here(folder))
        if not self._folder.is_dir():
            raise DataError(f"bootstrapped.images: {folder}: no such folder")
        given = source.get("path")
        paths = [path for path in (given if isinstance(given, list) else [given]) if path]
        images = [source["images"]] if source.get("images") else []
        self._earlier = [*images, *paths, *(os.path.dirname(path) for path in paths)]

    def __call__(self, path: str) -> str:
        """Return the path of an image as it is now.

        Raises:
            DataError: it was in none of the source's folders.
        """
        for earlier in self._earlier:
            below = os.path.relpath(path, earlier or ".")
            if below.split(os.sep)[0] not in (os.pardir, os.curdir) and not os.path.isabs(below):
                return os.path.join(self._folder, below)
        raise DataError(f"not below the source's folders: {path} ({', '.join(self._earlier)})")
