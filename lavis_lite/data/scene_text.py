"""The language of the scenes: what can be in a picture, how it is said, and how it is read back."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy

# Canonical value -> its spellings. Object colours are bright and backgrounds dark, and the two
# have no word in common, so that a colour word alone says what it belongs to.
Spellings = Mapping[str, tuple[str, ...]]
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
    """What a picture shows. The first thing is the left or top one of the first two."""

    things: tuple[Thing, ...]
    relation: str
    background: str
    third: str | None = None

    def facts(self) -> frozenset[str]:
        """Everything that is so in this scene: eight facts for two things, twelve for three."""
        found = {f"relation={self.relation}", f"background={self.background}"}
        for ordinal, thing in zip(ORDINALS, self.things, strict=False):
            found |= {f"{ordinal}.{part}={value}" for part, value in vars(thing).items()}
        if self.third:
            found.add(f"third.relation={THIRD[self.relation, self.third]}")
        return frozenset(found)


@dataclass(frozen=True)
class Level:
    """How much can be in a scene: `num_things` things in `num_colours` colours."""

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
        """How many different scenes there are: 18,432 at the easy level."""
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

_TEMPLATES = {
    2: (
        "{first} is {relation} {second} on {ground}",
        "{first} {relation} {second} on a {ground} background",
        "on {ground}, {first} is {relation} {second}",
        "there is {first} {relation} {second} against {ground}",
    ),
    3: (
        "{first} is {relation} {second}, with {third} {place} them on {ground}",
        "on {ground}, {first} is {relation} {second} and {third} is {place} both",
        "{second} is {inverse} {first} and {third} is {place} them on a {ground} background",
        "there is {second} {inverse} {first}, with {third} {place} both against {ground}",
    ),
}


def describe(scene: Scene, rng: numpy.random.Generator) -> str:
    """A sentence that states every fact of the scene, in a random template and wording."""
    templates = _TEMPLATES[len(scene.things)]
    template = templates[rng.integers(len(templates))]
    words = {
        ordinal: f"a {_say(SIZES, thing.size, rng)} {_say(COLOURS, thing.colour, rng)} "
        f"{_say(SHAPES, thing.shape, rng)}"
        for ordinal, thing in zip(ORDINALS, scene.things, strict=False)
    }
    words["relation"] = _say(RELATIONS, scene.relation, rng)
    words["inverse"] = _say(RELATIONS, INVERSE[scene.relation], rng)
    words["ground"] = _say(BACKGROUNDS, scene.background, rng)
    if scene.third:
        words["place"] = _say(RELATIONS, THIRD[scene.relation, scene.third], rng)
    return template.format(**words)


def _say(spellings: Spellings, value: str, rng: numpy.random.Generator) -> str:
    choices = spellings[value]
    return choices[rng.integers(len(choices))]


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


_FILLER = {"a", "an", "the", "is", "are", "to", "of", "on", "in", "with", "and", "them", "both"}
_FILLER |= {"there", "background", "against", "picture"}
_MEANING = {
    word: (kind, value)
    for kind, spellings in (
        ("size", SIZES),
        ("colour", COLOURS),
        ("shape", SHAPES),
        ("background", BACKGROUNDS),
    )
    for value, words in spellings.items()
    for word in words
}
_MEANING |= {
    word: ("relation", value)
    for value, phrases in RELATIONS.items()
    for word in (phrase.removeprefix("to the ").removesuffix(" of") for phrase in phrases)
}


def facts(text: str) -> frozenset[str] | None:
    """What a text states about a scene, whatever its template and wording.

    Returns:
        Facts such as ``first.colour=red``, ``relation=left``, ``background=grey``, fewer of them
        where the text says less; None where a word is not of this language, nothing is described
        or the text contradicts itself (junk).
    """
    things: list[dict[str, str]] = []
    said: dict[str, list[str]] = {"relation": [], "background": []}
    current: dict[str, str] = {}
    for word in re.findall(r"[^\W\d_]+", text.lower()):
        if word in _FILLER:
            continue
        if word not in _MEANING:
            return None
        kind, value = _MEANING[word]
        if current and (kind in said or kind in current or "shape" in current):
            things.append(current)
            current = {}
        if kind in said:
            said[kind].append(value)
        else:
            current[kind] = value
    if current:
        things.append(current)
    if not things or len(things) > 3 or len(said["background"]) > 1:
        return None
    return _as_facts(things, said["relation"], said["background"])


def _as_facts(
    things: list[dict[str, str]], relations: list[str], background: list[str]
) -> frozenset[str] | None:
    if len(relations) > max(len(things) - 1, 0):
        return None
    if relations and relations[0] in INVERSE.values():  # "b is right of a": a is the first
        things[0], things[1] = things[1], things[0]
        relations[0] = {other: one for one, other in INVERSE.items()}[relations[0]]
    found = {f"background={value}" for value in background}
    found |= {f"{name}={value}" for name, value in zip(_RELATION_NAMES, relations, strict=False)}
    for ordinal, thing in zip(ORDINALS, things, strict=False):
        found |= {f"{ordinal}.{part}={value}" for part, value in thing.items()}
    return frozenset(found)


_RELATION_NAMES = ("relation", "third.relation")

_JUNK = (
    "IMG_{n}.jpg",
    "DSC0{n}.JPG",
    "screenshot {n}",
    "stock photo {n}",
    "buy online free shipping",
    "add to cart best price",
    "click here to read more",
    "image may contain text",
    "follow us for more",
    "wallpaper hd free download",
    "all rights reserved 20{m}",
    "page {m} of {n}",
    "no description available",
    "untitled document",
    "banner {m} x {n}",
    "profile picture of user{n}",
    "share this post",
    "sale up to {m} percent off",
    "photo gallery",
    "subscribe to our newsletter",
    "thumbnail",
    "logo",
)


def junk(rng: numpy.random.Generator) -> str:
    """Alternative text as the web has it: says nothing about the picture."""
    template = _JUNK[rng.integers(len(_JUNK))]
    return template.format(n=rng.integers(1000, 9999), m=rng.integers(10, 24))
