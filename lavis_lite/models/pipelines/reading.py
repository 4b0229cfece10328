"""Pictures of any clear form, read a few ahead of the model that looks at them."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from torch import Tensor

from lavis_lite.data.files.images import decode
from lavis_lite.errors import ConfigError, DataError, DownloadError
from lavis_lite.io.paths import local_path
from lavis_lite.io.web_images import SECONDS, fetch_image
from lavis_lite.models.images import TakesImages, as_images
from lavis_lite.modules.samples import kind_of

T = TypeVar("T")
R = TypeVar("R")
_THREADS = 4


def read_ahead(
    items: Iterable[T], read: Callable[[T], R], size: int
) -> Iterator[list[tuple[T, R]]]:
    """Yield items with what was read of them, in their order; one batch is read ahead.

    No more than two batches of an endless iterable are held at a time.

    Args:
        items: taken as they are needed.
        read: called in threads; an error that it raises is raised here.
        size: items per batch, at most.
    """
    source = iter(items)
    chunks = iter(lambda: list(itertools.islice(source, size)), [])
    with ThreadPoolExecutor(_THREADS) as pool:
        ahead: deque[list[tuple[T, Future[R]]]] = deque()
        for chunk in chunks:
            ahead.append([(item, pool.submit(read, item)) for item in chunk])
            if len(ahead) > 1:
                yield [(item, future.result()) for item, future in ahead.popleft()]
        for waiting in ahead:
            yield [(item, future.result()) for item, future in waiting]


def open_image(name: str, exif: bool = False, seconds: float = SECONDS) -> Image.Image:
    """Return an image in RGB, by path, ``hf://`` address or public URL.

    Args:
        name: of the image.
        exif: turn it as its EXIF orientation says.
        seconds: for fetching it.

    Raises:
        DataError: it cannot be read, with the reason.
    """
    if name.lower().startswith(("http:", "https:")):
        return decode(fetch_image(name, seconds), exif=exif)
    try:
        return decode(local_path(name), exif=exif)
    except DownloadError as error:
        raise DataError(str(error)) from None


def as_pixels(
    picture: object, model: TakesImages, name: str = "image", seconds: float = SECONDS
) -> Tensor:
    """Return one picture as the model takes it, (3, H, W).

    Args:
        picture: a path, an address or a public URL; or what ``as_images`` takes, of one picture.
        model: whose processor prepares it.
        name: of the picture, for messages.
        seconds: for fetching it.

    Raises:
        ConfigError: neither a picture nor pixels, or several of them.
        DataError: it cannot be read, with the reason.
    """
    if isinstance(picture, str | os.PathLike):
        picture = os.fspath(picture)
        if os.path.isdir(picture):
            raise DataError(
                f"{name}: {picture}: a folder; give its files, such as "
                f'sorted(Path({picture!r}).glob("*.jpg"))'
            )
        try:
            picture = open_image(picture, seconds=seconds)
        except DataError as error:
            raise DataError(f"{name}: {picture!s:.200}: {error}") from None
    pixels = as_images(picture, model, name)
    if len(pixels) != 1:
        raise ConfigError(f"{name}: {kind_of(picture)}, {len(pixels)} pictures; one is expected")
    return pixels[0]
