"""The embedded dataset: procedural scenes with captions, clean or noisy as the web is."""

from __future__ import annotations

from typing import Any, Unpack

import numpy

from lavis_lite import registry
from lavis_lite.data.choice import Choice
from lavis_lite.data.scenes import language, world
from lavis_lite.data.scenes.splits import SceneRows, in_split, scenes_of
from lavis_lite.data.scenes.world import Scene
from lavis_lite.errors import ConfigError

SIZES = {"human": 1000, "web": 4000, "test": 300}
# Shares of another image's caption, wrong facts and junk: 0.45 of the web in all.
_NOISE = {"easy": (0.20, 0.10, 0.15), "hard": (0.10, 0.20, 0.15)}
_KINDS = ("mismatch", "attribute", "junk", "clean")


@registry.register("dataset", "scenes")
class Scenes(SceneRows):
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
        choice: which rows are taken, as of every dataset, see `Choice`.

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
        **choice: Unpack[Choice],
    ):
        super().__init__("scenes", SIZES, split, size, image_size, seed, level)
        noise = (sum(_NOISE[level]) if split == "web" else 0.0) if noise is None else noise
        if not 0 <= noise <= 1:
            raise ConfigError(f"scenes: noise: {noise}; from 0 to 1")
        shares = numpy.array(_NOISE[level])
        self._noise_bounds = numpy.cumsum(shares * noise / shares.sum())
        self._scenes = scenes_of(self._level, split, self._size, seed)
        self._choose(**choice)

    def facts(self, text: str) -> frozenset[str] | None:
        """Return the facts that a text states, such as ``first.colour=red``; None for junk."""
        return language.facts(text)

    def scene(self, index: int) -> Scene:
        """Return the scene that the picture of a row shows."""
        return self._scene(self._number(index))

    def _scene(self, number: int) -> Scene:
        return self._level.scene(int(self._scenes[number % len(self._scenes)]))

    def _annotation(self, number: int) -> dict[str, Any]:
        scene = self._scene(number)
        clean = language.describe(scene, self._rng(number, "clean"))
        rng = self._rng(number, "noise")
        noise = _KINDS[int(numpy.searchsorted(self._noise_bounds, rng.random(), side="right"))]
        if noise == "junk":
            text = language.junk(rng)
        elif noise == "clean":
            text = clean
        else:
            said = self._wrong_scene(scene, noise, rng)
            # The same wording, as far as it goes: only the facts are wrong.
            text = language.describe(said, self._rng(number, "clean"))
        key = self._key(number)
        return {
            "text_input": text,
            "image_id": key,
            "key": key,
            "noise": noise,
            "clean_text": clean,
        }

    def _wrong_scene(self, scene: Scene, noise: str, rng: numpy.random.Generator) -> Scene:
        if noise == "attribute":
            return world.with_error(scene, self._level, rng)
        while True:  # another scene of this split
            number = int(rng.integers(self._level.num_scenes))
            other = self._level.scene(number)
            if other != scene and in_split(numpy.array([number]), self._split)[0]:
                return other

    def _row(self, number: int) -> dict[str, Any]:
        image = self._draw(self._scene(number), number, "image")
        return {"image": image, **self._annotation(number)}
