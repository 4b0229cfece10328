"""Images of one channel with more than 8 bits or of floats, scaled to RGB of 8 bits."""

from __future__ import annotations

import numpy
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB, where PIL's ``convert`` would clip deep greys to white or black.

    16 bits are divided by 256. Of 32 bits and of floats the range is taken from the values, as
    files do not say it: [0, 1] and [0, 65535] are scaled as such (floats, integers), [0, 255] is
    left, anything else is stretched so that its least is black and its most white. Values that
    are no numbers become black.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((numpy.asarray(image) >> 8).astype(numpy.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = numpy.asarray(image)
        # PIL scales what a PGM holds to 16 bits, also where all of it is dark.
        known = image.mode == "I" and image.format == "PPM"
        scaled = (values // 256).clip(0, 255).astype(numpy.uint8) if known else _scaled(values)
        return Image.fromarray(scaled).convert("RGB")
    return image.convert("RGB")


def _scaled(values: numpy.ndarray) -> numpy.ndarray:
    """(H, W) integers or floats to uint8."""
    is_float = values.dtype.kind == "f"
    finite = numpy.isfinite(values)
    if not finite.any():
        return numpy.zeros(values.shape, numpy.uint8)
    low, high = float(values[finite].min()), float(values[finite].max())
    values = numpy.where(finite, values, low).astype(numpy.float32)
    if low < 0 or high > 65535 or (is_float and high > 255):
        with numpy.errstate(over="ignore"):  # beyond what a float holds everything is white
            values = (values - low) * (255 / (high - low)) if high > low else values * 0
    elif is_float and high <= 1:
        values = values * 255
    elif high > 255:
        values = values // 256
    return numpy.rint(values).clip(0, 255).astype(numpy.uint8)
