"""The contents of a picture: things of a size, colour and shape, their relation, the ground."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy

Spellings = Mapping[str, tuple[str, ...]]  # canonical value -> how it is said

# Things are bright and backgrounds dark, and the two have no word in common, so that a colour
# word alone says what it belongs to.
SIZES: Spellings = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
SHAPES: Spellings = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus"),
}
COLOURS: Spellings = {
    "red": ("red",),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "purple": ("purple", "violet"),
    "orange": ("orange",),
    "pink": ("pink",),
    "cyan": ("cyan", "turquoise"),
    "white": ("white",),
}
BACKGROUNDS: Spellings = {
    "black": ("black",),
    "grey": ("grey", "gray"),
    "brown": ("brown",),
    "navy": ("navy",),
}
RELATIONS: Spellings = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
INVERSE = {"left": "right", "above": "below"}
# Where the third object stands: before or after the other two, across their direction.
THIRD = {
    ("left", "before"): "above",
    ("left", "after"): "below",
    ("above", "before"): "left",
    ("above", "after"): "right",
}
ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class Thing:
    """One object of a scene."""

    size: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene:
    """The content of a picture. The first thing is the left or top one of the first two."""

    things: tuple[Thing, ...]
    relation: str
    background: str
    third: str | None = None

    def facts(self) -> frozenset[str]:
        """Return all facts of this scene: eight for two things, twelve for three."""
        found = {f"relation={self.relation}", f"background={self.background}"}
        for ordinal, thing in zip(ORDINALS, self.things, strict=False):
            found |= {f"{ordinal}.{part}={value}" for part, value in vars(thing).items()}
        if self.third:
            found.add(f"third.relation={THIRD[self.relation, self.third]}")
        return frozenset(found)


@dataclass(frozen=True)
class Level:
    """The difficulty of scenes: `num_things` things in `num_colours` colours."""

    num_things: int
    num_colours: int

    @property
    def colours(self) -> tuple[str, ...]:
        return tuple(COLOURS)[: self.num_colours]

    @functools.cached_property
    def _radices(self) -> list[tuple[str, ...]]:
        thing = [tuple(SIZES), self.colours, tuple(SHAPES)]
        third = [("before", "after")] if self.num_things == 3 else []
        return thing * self.num_things + [("left", "above"), tuple(BACKGROUNDS), *third]

    @property
    def num_scenes(self) -> int:
        """The number of different scenes: 18,432 at the easy level."""
        return math.prod(len(values) for values in self._radices)

    def scene(self, number: int) -> Scene:
        """The scene of that number, 0 <= number < num_scenes: a digit per choice."""
        chosen = []
        for values in self._radices:
            number, digit = divmod(number, len(values))
            chosen.append(values[digit])
        count = 3 * self.num_things
        things = tuple(Thing(*chosen[start : start + 3]) for start in range(0, count, 3))
        return Scene(things, *chosen[count:])


LEVELS = {"easy": Level(num_things=2, num_colours=6), "hard": Level(num_things=3, num_colours=9)}


def with_error(scene: Scene, level: Level, rng: numpy.random.Generator) -> Scene:
    """Nearly the same scene: one or two facts changed, or (three things) two things mixed up.

    Mixing up keeps every word true of something in the picture, so that only a reader who binds
    words to things can tell: the partial errors of the hard level.
    """
    if len(scene.things) == 3 and rng.random() < 0.5:
        swapped = _swap(scene, rng)
        if swapped != scene:
            return swapped
    parts = [(index, part) for index in range(len(scene.things)) for part in vars(scene.things[0])]
    choices = [*parts, (None, "relation"), (None, "background")]
    for chosen in rng.permutation(len(choices))[: rng.integers(1, 3)]:
        index, part = choices[chosen]
        scene = _change(scene, level, index, part, rng)
    return scene


def _swap(scene: Scene, rng: numpy.random.Generator) -> Scene:
    """The scene with one property exchanged between two of its things."""
    one, other = (int(index) for index in rng.permutation(len(scene.things))[:2])
    part = ("size", "colour", "shape")[rng.integers(3)]
    things = list(scene.things)
    left, right = getattr(things[one], part), getattr(things[other], part)
    things[one] = replace(things[one], **{part: right})
    things[other] = replace(things[other], **{part: left})
    return replace(scene, things=tuple(things))


def _change(
    scene: Scene, level: Level, index: int | None, part: str, rng: numpy.random.Generator
) -> Scene:
    values = {
        "size": tuple(SIZES),
        "colour": level.colours,
        "shape": tuple(SHAPES),
        "relation": tuple(INVERSE),
        "background": tuple(BACKGROUNDS),
    }[part]
    holder = scene if index is None else scene.things[index]
    others = [value for value in values if value != getattr(holder, part)]
    value = others[rng.integers(len(others))]
    if index is None:
        return replace(scene, **{part: value})  # type: ignore[arg-type]
    things = list(scene.things)
    things[index] = replace(things[index], **{part: value})
    return replace(scene, things=tuple(things))
