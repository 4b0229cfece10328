"""Pictures in any clear form: PIL images, paths, files' bytes, arrays and tensors of 8 bits."""

from __future__ import annotations

import os

import numpy
import torch
from PIL import Image
from torch import Tensor

from lavis_lite.data.files.images import decode
from lavis_lite.errors import ConfigError


def as_picture(value: object) -> Image.Image:
    """Return one picture as a PIL image.

    Args:
        value: what ``pictures_in`` takes, of one picture.

    Raises:
        ConfigError: anything else.
        DataError: a file that is missing or no image.
    """
    if isinstance(value, Image.Image):
        return value
    found = pictures_in(value)
    if found is None or len(found) != 1:
        raise ConfigError(
            f"image: {type(value).__name__} {value!r:.60}; one picture is expected: a PIL image, a "
            "path, or an array (H, W, 3) of uint8"
        )
    return found[0]


def pictures_in(value: object) -> list[Image.Image] | None:
    """Return the pictures in something unprocessed; None if it is no picture.

    Args:
        value: a PIL image, a path, the bytes of a file, an array or tensor of 8 bits: (H, W) grey,
            (H, W, 3) or (3, H, W) one picture, (B, H, W, 3) or (B, 3, H, W) several.

    Raises:
        DataError: a file that is missing or no image.
    """
    if isinstance(value, Image.Image):
        return [value]
    if isinstance(value, str | bytes | os.PathLike):
        return [decode(value)]
    if isinstance(value, Tensor) and value.dtype == torch.uint8:
        value = value.cpu().numpy()
    if not isinstance(value, numpy.ndarray) or value.dtype != numpy.uint8 or not value.size:
        return None
    if value.ndim == 2:
        return [Image.fromarray(value)]
    if value.ndim in (3, 4) and value.shape[-1] != 3 and value.shape[-3] == 3:
        value = numpy.moveaxis(value, -3, -1)
    if value.ndim not in (3, 4) or value.shape[-1] != 3:
        return None
    rows = value[None] if value.ndim == 3 else value
    return [Image.fromarray(numpy.ascontiguousarray(row)) for row in rows]
