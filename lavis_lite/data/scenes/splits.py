"""The scenes that each split shows and the randomness of a row, shared by all scene datasets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy
from PIL import Image

from lavis_lite.data.files.rows import Rows
from lavis_lite.data.scenes.drawing import draw
from lavis_lite.data.scenes.world import LEVELS, Level, Scene
from lavis_lite.data.seeding import generator
from lavis_lite.errors import ConfigError, suggest

# Of ten buckets of scenes. What a split shows depends on the scene alone, never on the seed: a
# model trained with one seed has not seen another seed's test scenes.
_BUCKETS = {"test": (0, 1), "human": (1, 4), "web": (4, 10)}


class SceneRows(Rows):
    """Rows about scenes. A row is a function of seed, split, level and index alone.

    Args:
        dataset: the registered name, for messages.
        sizes: the splits there are, and how many rows each has by default.
        split, size, image_size, seed, level: as the datasets document them.

    Raises:
        ConfigError: on a value out of range.
    """

    def __init__(
        self,
        dataset: str,
        sizes: Mapping[str, int],
        split: str,
        size: int | None,
        image_size: int,
        seed: int,
        level: str,
    ):
        for argument, value, known in (("split", split, sizes), ("level", level, LEVELS)):
            if value not in known:
                raise ConfigError(
                    f"{dataset}: no {argument} {value!r}.{suggest(value, known)}"
                    f" Known: {list(known)}"
                )
        self._size = sizes[split] if size is None else size
        for argument, good in (
            (f"size: {self._size}; at least 1", self._size >= 1),
            (f"image_size: {image_size}; at least 16", image_size >= 16),
        ):
            if not good:
                raise ConfigError(f"{dataset}: {argument}")
        self.name = f"{dataset}-{level}-{split}-{seed}"
        self.image_size = image_size
        self._level, self._level_name, self._split, self._seed = LEVELS[level], level, split, seed

    def _rng(self, number: int, what: str) -> numpy.random.Generator:
        return generator("scenes", self._level_name, self._split, self._seed, number, what)

    def _count(self) -> int:
        return self._size

    def _key(self, number: int) -> str:
        return f"{self.name}-{number:06d}"

    def _draw(self, scene: Scene, number: int, what: str) -> Image.Image:
        return draw(scene, self.image_size, self._rng(number, what))


def scenes_of(level: Level, split: str, size: int, seed: int) -> numpy.ndarray:
    """Numbers of the first `size` scenes of a split, in the seed's order; fewer if there are."""
    numbers = numpy.arange(level.num_scenes, dtype=numpy.int32)
    generator("scenes", seed).shuffle(numbers)
    # A look at the first part saves the hashing of six million scenes at the hard level.
    for part in (numbers[: 20 * size], numbers):
        chosen = part[in_split(part, split)][:size]
        if len(chosen) == size:
            break
    return chosen.copy()


def in_split(numbers: numpy.ndarray, split: str) -> numpy.ndarray:
    """Tell for each scene whether it is in the split, by a hash (splitmix64) of its number."""
    mixed = numbers.astype(numpy.uint64) + numpy.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    bucket = (mixed ^ (mixed >> numpy.uint64(31))) % numpy.uint64(10)
    first, last = _BUCKETS[split]
    return (bucket >= first) & (bucket < last)
