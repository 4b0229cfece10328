"""Sizes of the images that a model takes. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_lite.errors import ConfigError

ImageSize = int | Sequence[int]  # the side of a square, or (height, width), in pixels


def height_width(size: ImageSize) -> tuple[int, int]:
    """Return (height, width).

    Raises:
        ConfigError: not one or two positive numbers.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"image_size: {size}; the side of a square, or [height, width]")
    return sides[0], sides[1]
