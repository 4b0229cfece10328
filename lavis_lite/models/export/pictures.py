"""Pictures to arrays by the recipe of an image processor, in numpy. Imports no torch.

A processor that has a ``recipe`` can be exported: ``resize`` is ``stretch``, to the size whatever
the picture's shape, or ``cover``, to just cover it, and the centre is cut out; ``size`` is [height,
width]; ``mean`` and ``std`` are per channel, of values in [0, 1]. Resampling is PIL's bicubic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
from PIL import Image

from lavis_lite.data.files.deep_grey import to_rgb

Array = numpy.ndarray


def prepared(picture: Image.Image, recipe: Mapping[str, Any]) -> Array:
    """Return a picture as (3, H, W) fp32, to the bit what the image processor gives."""
    fit = {"stretch": _stretched, "cover": _covering}[recipe["resize"]]
    rows, columns = recipe["size"]
    resized = fit(picture if picture.mode == "RGB" else to_rgb(picture), rows, columns)
    values = numpy.asarray(resized).transpose(2, 0, 1).astype(numpy.float32)  # (3, H, W)
    mean, std = (numpy.array(recipe[key], numpy.float32)[:, None, None] for key in ("mean", "std"))
    return numpy.ascontiguousarray((values / numpy.float32(255) - mean) / std)


def _stretched(picture: Image.Image, rows: int, columns: int) -> Image.Image:
    return picture.resize((columns, rows), Image.Resampling.BICUBIC)


def _covering(picture: Image.Image, rows: int, columns: int) -> Image.Image:
    scale = max(rows / picture.height, columns / picture.width)
    width = max(columns, int(picture.width * scale))
    height = max(rows, int(picture.height * scale))
    left, top = round((width - columns) / 2), round((height - rows) / 2)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + columns, top + rows))
