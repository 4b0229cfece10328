"""The embedded dataset: procedural scenes with captions, clean or noisy as the web is."""

from __future__ import annotations

from typing import Any

import numpy

from lavis_lite import registry
from lavis_lite.data import scene_text, scene_world
from lavis_lite.data.rows import Rows
from lavis_lite.data.scene_drawing import draw
from lavis_lite.data.scene_world import LEVELS, Level, Scene
from lavis_lite.data.seeding import generator
from lavis_lite.errors import ConfigError, suggest

SIZES = {"human": 1000, "web": 4000, "test": 300}
# Of ten buckets of scenes. What a split shows depends on the scene alone, never on the seed: a
# model trained with one seed has not seen another seed's test scenes.
_BUCKETS = {"test": (0, 1), "human": (1, 4), "web": (4, 10)}
# Shares of another image's caption, wrong facts and junk: 0.45 of the web in all.
_NOISE = {"easy": (0.20, 0.10, 0.15), "hard": (0.10, 0.20, 0.15)}
_KINDS = ("mismatch", "attribute", "junk", "clean")


@registry.register("dataset", "scenes")
class Scenes(Rows):
    """Pictures of two or three things on a dark ground, made on the spot.

    A row has, besides the usual fields, `clean_text`, a true caption, and `noise`: `clean` where
    `text_input` is that caption, else `mismatch` (another scene's), `attribute` (nearly right) or
    `junk`. They are for measuring, not for training. A row is a function of seed, split, level and
    index: a larger `size` only appends, and another `noise` changes no picture and no scene.

    Args:
        split: `human` (clean), `web` (noisy) or `test` (clean); no scene is in two splits.
        size: rows; by default 1000, 4000 and 300.
        image_size: of the pictures, in pixels.
        seed: another seed, other rows.
        noise: share of noisy captions; by default 0.45 for `web`, 0 else.
        level: `easy` has two things, six colours, 18,432 scenes. `hard` has three things, nine
            colours, inverted sentences, and captions with things mixed up.
        limit, where, fold: a choice of the rows, see `Rows._choose`.

    Raises:
        ConfigError: on a value out of range.
    """

    splits = tuple(SIZES)

    def __init__(
        self,
        split: str = "web",
        size: int | None = None,
        image_size: int = 64,
        seed: int = 0,
        noise: float | None = None,
        level: str = "easy",
        limit: int | None = None,
        where: dict[str, Any] | None = None,
        fold: dict[str, Any] | None = None,
    ):
        for argument, value, known in (("split", split, SIZES), ("level", level, LEVELS)):
            if value not in known:
                raise ConfigError(
                    f"scenes: no {argument} {value!r}.{suggest(value, known)} Known: {list(known)}"
                )
        size = SIZES[split] if size is None else size
        noise = (sum(_NOISE[level]) if split == "web" else 0.0) if noise is None else noise
        for argument, good in (
            (f"size: {size}; at least 1", size >= 1),
            (f"image_size: {image_size}; at least 16", image_size >= 16),
            (f"noise: {noise}; from 0 to 1", 0 <= noise <= 1),
        ):
            if not good:
                raise ConfigError(f"scenes: {argument}")
        self.name = f"scenes-{level}-{split}-{seed}"
        self.image_size = image_size
        self._level, self._level_name, self._split, self._seed = LEVELS[level], level, split, seed
        self._size = size
        shares = numpy.array(_NOISE[level])
        self._noise_bounds = numpy.cumsum(shares * noise / shares.sum())
        self._scenes = _scenes_of(self._level, split, size, seed)
        self._choose(limit, where, fold)

    def facts(self, text: str) -> frozenset[str] | None:
        """What a text states: facts such as ``first.colour=red``; None for junk."""
        return scene_text.facts(text)

    def scene(self, index: int) -> Scene:
        """What the picture of a row shows."""
        return self._scene(self._number(index))

    def _scene(self, number: int) -> Scene:
        return self._level.scene(int(self._scenes[number % len(self._scenes)]))

    def _rng(self, number: int, what: str) -> numpy.random.Generator:
        return generator("scenes", self._level_name, self._split, self._seed, number, what)

    def _count(self) -> int:
        return self._size

    def _annotation(self, number: int) -> dict[str, Any]:
        scene = self._scene(number)
        clean = scene_text.describe(scene, self._rng(number, "clean"))
        rng = self._rng(number, "noise")
        noise = _KINDS[int(numpy.searchsorted(self._noise_bounds, rng.random(), side="right"))]
        if noise == "junk":
            text = scene_text.junk(rng)
        elif noise == "clean":
            text = clean
        else:
            said = self._wrong_scene(scene, noise, rng)
            # The same wording, as far as it goes: only the facts are wrong.
            text = scene_text.describe(said, self._rng(number, "clean"))
        key = f"{self.name}-{number:06d}"
        return {
            "text_input": text,
            "image_id": key,
            "key": key,
            "noise": noise,
            "clean_text": clean,
        }

    def _wrong_scene(self, scene: Scene, noise: str, rng: numpy.random.Generator) -> Scene:
        if noise == "attribute":
            return scene_world.with_error(scene, self._level, rng)
        while True:  # another scene of this split
            number = int(rng.integers(self._level.num_scenes))
            other = self._level.scene(number)
            if other != scene and _in_split(numpy.array([number]), self._split)[0]:
                return other

    def _row(self, number: int) -> dict[str, Any]:
        image = draw(self._scene(number), self.image_size, self._rng(number, "image"))
        return {"image": image, **self._annotation(number)}


def _scenes_of(level: Level, split: str, size: int, seed: int) -> numpy.ndarray:
    """Numbers of the first `size` scenes of a split, in the seed's order; fewer if there are."""
    numbers = numpy.arange(level.num_scenes, dtype=numpy.int32)
    generator("scenes", seed).shuffle(numbers)
    # A look at the first part saves the hashing of six million scenes at the hard level.
    for part in (numbers[: 20 * size], numbers):
        chosen = part[_in_split(part, split)][:size]
        if len(chosen) == size:
            break
    return chosen.copy()


def _in_split(numbers: numpy.ndarray, split: str) -> numpy.ndarray:
    """Whether each scene is in the split: by a hash (splitmix64) of its number."""
    mixed = numbers.astype(numpy.uint64) + numpy.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    bucket = (mixed ^ (mixed >> numpy.uint64(31))) % numpy.uint64(10)
    first, last = _BUCKETS[split]
    return (bucket >= first) & (bucket < last)
