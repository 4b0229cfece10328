"""Scenes as pictures: bright things on a dark ground, drawn at any size."""

from __future__ import annotations

import functools

import numpy
from PIL import Image

from lavis_lite.data.scenes.world import Scene
from lavis_lite.data.seeding import generator

COLOURS = {
    "red": (236, 52, 54),
    "green": (58, 200, 84),
    "blue": (64, 132, 255),
    "yellow": (252, 220, 60),
    "purple": (170, 84, 232),
    "orange": (255, 144, 36),
    "pink": (255, 146, 196),
    "cyan": (60, 220, 228),
    "white": (246, 246, 240),
}
BACKGROUNDS = {
    "black": (12, 12, 14),
    "grey": (78, 80, 84),
    "brown": (72, 46, 30),
    "navy": (16, 24, 72),
}
# All lengths are in pixels of a 64-pixel picture and scale with its size.
_UNIT = 64
_RADII = {"small": 7.0, "large": 13.0}
_CENTRES = {
    ("left", None): ((16, 32), (48, 32)),
    ("above", None): ((32, 16), (32, 48)),
    ("left", "before"): ((16, 48), (48, 48), (32, 16)),
    ("left", "after"): ((16, 16), (48, 16), (32, 48)),
    ("above", "before"): ((48, 16), (48, 48), (16, 32)),
    ("above", "after"): ((16, 16), (16, 48), (48, 32)),
}
_NOISE = 6.0


def draw(scene: Scene, image_size: int, rng: numpy.random.Generator) -> Image.Image:
    """The scene as an RGB picture of image_size x image_size, with noise and a little jitter."""
    scale = image_size / _UNIT
    canvas = numpy.empty((image_size, image_size, 3), numpy.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    across = (1.5, 0.5) if scene.relation == "above" else (0.5, 1.5)
    jitters = rng.uniform(-1, 1, (len(scene.things), 3)).tolist()
    centres = _CENTRES[scene.relation, scene.third]
    for thing, (x, y), jitter in zip(scene.things, centres, jitters, strict=True):
        x, y = x + across[0] * jitter[0], y + across[1] * jitter[1]
        radius = _RADII[thing.size] + jitter[2]
        _paint(canvas, thing.shape, COLOURS[thing.colour], x * scale, y * scale, radius * scale)
    noise = _noise(image_size)
    start = int(rng.integers(noise.size - canvas.size))
    canvas += noise[start : start + canvas.size].reshape(canvas.shape)
    return Image.fromarray(canvas.clip(0, 255, out=canvas).astype(numpy.uint8))


@functools.lru_cache(maxsize=4)
def _noise(image_size: int) -> numpy.ndarray:
    """A strip of noise to cut from: drawing it anew would take a third of a picture's time."""
    count = 5 * 3 * image_size**2
    return _NOISE * generator("scene noise").standard_normal(count, dtype=numpy.float32)


def _paint(
    canvas: numpy.ndarray,
    shape: str,
    colour: tuple[int, int, int],
    x: float,
    y: float,
    radius: float,
) -> None:
    """Blend one shape into its window of the canvas, lit a little from the top left."""
    left, top = max(int(x - radius) - 2, 0), max(int(y - radius) - 2, 0)
    window = canvas[top : int(y + radius) + 3, left : int(x + radius) + 3]
    height, width = window.shape[:2]
    dx = numpy.arange(width, dtype=numpy.float32) + (left + 0.5 - x)
    dy = (numpy.arange(height, dtype=numpy.float32) + (top + 0.5 - y))[:, None]
    # The distance to the outline in pixels, negative inside: half a pixel of it is a soft edge.
    cover = (0.5 - _DISTANCE[shape](dx, dy, radius)).clip(0, 1)[..., None]
    light = 1 - (0.09 / radius) * (dx + dy)
    paint = light[..., None] * numpy.array(colour, numpy.float32)
    paint -= window
    paint *= cover
    window += paint


def _circle(dx: numpy.ndarray, dy: numpy.ndarray, radius: float) -> numpy.ndarray:
    return numpy.hypot(dx, dy) - radius


def _square(dx: numpy.ndarray, dy: numpy.ndarray, radius: float) -> numpy.ndarray:
    return numpy.maximum(abs(dx), abs(dy)) - 0.88 * radius


def _triangle(dx: numpy.ndarray, dy: numpy.ndarray, radius: float) -> numpy.ndarray:
    slanted = 0.894 * abs(dx) - 0.447 * dy - 0.447 * radius
    return numpy.maximum(slanted, dy - 0.85 * radius)


def _cross(dx: numpy.ndarray, dy: numpy.ndarray, radius: float) -> numpy.ndarray:
    dx, dy, arm = abs(dx), abs(dy), 0.34 * radius
    upright = numpy.maximum(dx - arm, dy - radius)
    level = numpy.maximum(dx - radius, dy - arm)
    return numpy.minimum(upright, level)


_DISTANCE = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross}
