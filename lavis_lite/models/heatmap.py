"""Pictures that show where something was found: a map of patches laid over the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lavis_lite.data.files.deep_grey import to_rgb

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = "jet"
BLUR = 0.02  # deviation of the blur, in longer sides of the picture
EMPHASIS = 0.7  # below 1, faint relevance is shown more than in proportion


def relevance_map(
    image: np.ndarray, relevance: Tensor | np.ndarray, blur: bool = True, overlap: bool = True
) -> np.ndarray:
    """A map of patches in colours, laid over an image where it is relevant.

    Args:
        image: (H, W, 3) in [0, 1].
        relevance: (rows, columns) of any range; its least is shown as 0 and its most as 1.
        blur: smooth the patches' edges.
        overlap: lay the colours over the image; otherwise the colours alone.

    Returns:
        (H, W, 3) in [0, 1].
    """
    from matplotlib import colormaps

    image = np.asarray(image, dtype=np.float32)
    values = _unit_range(np.asarray(relevance, dtype=np.float32))
    height, width = image.shape[:2]
    resized = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
    values = np.asarray(resized).clip(0, 1)
    if blur:
        values = _unit_range(_blurred(values, BLUR * max(height, width)))
    colours = colormaps[COLOURS](values)[..., :3].astype(np.float32)
    if not overlap:
        return colours
    weight = values[..., None] ** EMPHASIS
    return (1 - weight) * image + weight * colours


# LAVIS's name for it.
getAttMap = relevance_map


def overlay(picture: Image.Image, relevance: Tensor | np.ndarray, blur: bool = True) -> Image.Image:
    """A picture with a map of patches laid over it, at the picture's size.

    Args:
        picture: of any mode.
        relevance: (rows, columns), as ``model.localize`` gives it for one image.
        blur: smooth the patches' edges.
    """
    pixels = np.asarray(to_rgb(picture), dtype=np.float32) / 255
    return Image.fromarray((relevance_map(pixels, relevance, blur) * 255).round().astype(np.uint8))


def _unit_range(values: np.ndarray) -> np.ndarray:
    """Shifted and scaled to [0, 1]; all zeros where everything is the same."""
    values = values - values.min()
    most = values.max()
    return values / most if most > 0 else values


def _blurred(values: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur of (H, W), mirrored at the edges."""
    radius = math.ceil(4 * deviation)
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (steps / deviation) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for _ in range(2):  # rows, then columns
        padded = np.pad(values, ((0, 0), (radius, radius)), mode="symmetric")
        values = np.stack([np.convolve(row, kernel, mode="valid") for row in padded]).T
    return values
