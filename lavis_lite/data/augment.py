"""The ten random operations of BLIP's training augmentation, on 8-bit PIL images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy
from PIL import Image, ImageEnhance, ImageOps

Op = Callable[[Image.Image, float, numpy.random.Generator], Image.Image]

_MAX_MAGNITUDE = 10
_MAX_SHEAR, _MAX_DEGREES, _MAX_PIXELS = 0.3, 30.0, 10.0
_FILL = (128, 128, 128)


def random_augment(
    image: Image.Image,
    ops: Sequence[str],
    num_ops: int,
    magnitude: float,
    rng: numpy.random.Generator,
) -> Image.Image:
    """Draw `num_ops` operations with replacement, and apply each at even odds.

    The original draws with OpenCV, this with PIL: the same operations and strengths, but not the
    same roundings.

    Reference: transform/randaugment.py of the original BLIP.
    """
    for choice in rng.integers(len(ops), size=num_ops).tolist():
        if rng.random() < 0.5:
            image = OPS[ops[choice]](image, magnitude / _MAX_MAGNITUDE, rng)
    return image


def _identity(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return image


def _autocontrast(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return ImageOps.equalize(image)


def _enhance(image: Image.Image, enhancer: type, strength: float) -> Image.Image:
    factor = strength * 1.8 + 0.1
    return image if factor == 1 else enhancer(image).enhance(factor)


def _brightness(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _enhance(image, ImageEnhance.Brightness, strength)


def _sharpness(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _enhance(image, ImageEnhance.Sharpness, strength)


def _move(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Take each pixel (x, y) from (a x + b y + c, d x + e y + f); grey outside the image."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_FILL
    )


def _either_way(amount: float, rng: numpy.random.Generator) -> float:
    return amount if rng.random() < 0.5 else -amount


def _shear_x(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _move(image, (1, _either_way(strength * _MAX_SHEAR, rng), 0, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _move(image, (1, 0, 0, _either_way(strength * _MAX_SHEAR, rng), 1, 0))


def _translate_x(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _move(image, (1, 0, _either_way(strength * _MAX_PIXELS, rng), 0, 1, 0))


def _translate_y(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    return _move(image, (1, 0, 0, 0, 1, _either_way(strength * _MAX_PIXELS, rng)))


def _rotate(image: Image.Image, strength: float, rng: numpy.random.Generator) -> Image.Image:
    angle = math.radians(_either_way(strength * _MAX_DEGREES, rng))
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = image.width / 2, image.height / 2
    return _move(
        image, (cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)
    )


OPS: dict[str, Op] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "equalize": _equalize,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
}
