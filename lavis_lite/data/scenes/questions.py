"""Questions about scenes, with what ten people would answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy

from lavis_lite.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIZES,
    THIRD,
    Level,
    Scene,
    Thing,
)

PARTS: Mapping[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "shape": tuple(SHAPES),
}
KINDS = ("colour", "shape", "size", "where", "count", "background", "exists", "relation")
_TYPES = {"count": "number", "exists": "yes/no", "relation": "yes/no"}
# How people say an answer, the usual way first; any other answer is said in one way.
_SAID: dict[str, tuple[str, ...]] = {
    **{value: words for words_of in (COLOURS, BACKGROUNDS) for value, words in words_of.items()},
    "small": ("small", "tiny"),
    "large": ("large", "big"),
    **{str(n): (str(n), word) for n, word in enumerate(("zero", "one", "two", "three"))},
}
_PLACES = {"left": ("left", "right"), "above": ("top", "bottom")}
_PLACE_OF_THIRD = {"left": "left", "right": "right", "above": "top", "below": "bottom"}
_PEOPLE, _USUAL = 10, 0.7


class Question(NamedTuple):
    """A question, its true answer in the usual wording, and which of `KINDS` it is."""

    text: str
    answer: str
    kind: str

    @property
    def answer_type(self) -> str:
        """`yes/no`, `number` or `other`, as VQA's evaluation groups them."""
        return _TYPES.get(self.kind, "other")


Description = dict[str, str]  # part -> value: {"colour": "red", "shape": "circle"}


def fits(thing: Thing, description: Description) -> bool:
    """Tell whether a thing fits the description."""
    return all(getattr(thing, part) == value for part, value in description.items())


def name(description: Description, plural: bool = False) -> str:
    """``large red circle``; ``thing`` where the description names no shape."""
    noun = description.get("shape", "thing")
    noun += ("es" if noun == "cross" else "s") if plural else ""
    return " ".join([*(description[p] for p in ("size", "colour") if p in description), noun])


def a_or_an(description: Description) -> str:
    """``a large red circle``, ``an orange thing``."""
    words = name(description)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def describe_some(thing: Thing, count: int, rng: numpy.random.Generator) -> Description:
    """`count` of a thing's three parts."""
    chosen = rng.choice(len(PARTS), count, replace=False)
    return {part: getattr(thing, part) for n, part in enumerate(PARTS) if n in chosen}


def ask(scene: Scene, level: Level, rng: numpy.random.Generator) -> Question:
    """A question about a scene, of a kind that can be asked of it without ambiguity."""
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        if question := _ask(kind, scene, level, rng):
            return question


def people_answer(answer: str, rng: numpy.random.Generator) -> list[str]:
    """Ten people's wordings of a true answer: most say it the usual way."""
    said = _SAID.get(answer, (answer,))
    usual = rng.random(_PEOPLE) < _USUAL
    others = rng.integers(1, len(said), _PEOPLE) if len(said) > 1 else [0] * _PEOPLE
    return [said[0] if keep else said[other] for keep, other in zip(usual, others, strict=True)]


def all_answers(level: Level) -> list[str]:
    """Every answer that a question of a level can have, in all wordings."""
    answers = [*level.colours, *SHAPES, *SIZES, *BACKGROUNDS, "left", "right", "top", "bottom"]
    answers += [*map(str, range(level.num_things + 1)), "yes", "no"]
    return list(dict.fromkeys(word for a in answers for word in _SAID.get(a, (a,))))


def _ask(kind: str, scene: Scene, level: Level, rng: numpy.random.Generator) -> Question | None:
    if kind == "background":
        return Question("what colour is the background?", scene.background, kind)
    if kind == "count":
        return _count(scene, level, rng)
    if kind == "exists":
        return _exists(scene, level, rng)
    if kind == "relation":
        return _relation(scene, rng)
    thing = int(rng.integers(len(scene.things)))
    described = _the(scene, thing, rng, without=kind)
    if described is None:
        return None
    if kind == "where":
        return Question(f"where is {described}?", _place(scene, thing), kind)
    wording = {
        "colour": f"what colour is {described}?",
        "shape": f"what shape is {described}?",
        "size": f"is {described} small or large?",
    }[kind]
    return Question(wording, getattr(scene.things[thing], kind), kind)


def _count(scene: Scene, level: Level, rng: numpy.random.Generator) -> Question:
    # Half the time about something that is there, or the answer would nearly always be 0.
    there = scene.things[rng.integers(len(scene.things))]
    thing = there if rng.random() < 0.5 else _any_thing(level, rng)
    described = describe_some(thing, 1, rng)
    number = sum(fits(other, described) for other in scene.things)
    return Question(f"how many {name(described, plural=True)} are there?", str(number), "count")


def _exists(scene: Scene, level: Level, rng: numpy.random.Generator) -> Question:
    yes = rng.random() < 0.5
    while True:
        thing = scene.things[rng.integers(len(scene.things))] if yes else _any_thing(level, rng)
        described = describe_some(thing, 2, rng)
        if any(fits(other, described) for other in scene.things) == yes:
            text = f"is there {a_or_an(described)}?"
            return Question(text, "yes" if yes else "no", "exists")


def _relation(scene: Scene, rng: numpy.random.Generator) -> Question | None:
    first, second = _the(scene, 0, rng), _the(scene, 1, rng)
    if first is None or second is None:
        return None
    if rng.random() < 0.5:
        said, holds = scene.relation, rng.random() < 0.5
    else:  # the other way round
        first, second = second, first
        said, holds = INVERSE[scene.relation], rng.random() < 0.5
    if not holds:
        said = {**INVERSE, **{b: a for a, b in INVERSE.items()}}[said]
    words = RELATIONS[said][-1 if said in ("left", "right") else 0]
    return Question(f"is {first} {words} {second}?", "yes" if holds else "no", "relation")


def _the(scene: Scene, thing: int, rng: numpy.random.Generator, without: str = "") -> str | None:
    """``the red circle``: a shortest description of this thing alone, or None if there is none."""
    found = next(_descriptions(scene, thing, rng, without), None)
    return None if found is None else f"the {name(found)}"


def _descriptions(
    scene: Scene, thing: int, rng: numpy.random.Generator, without: str
) -> Iterator[Description]:
    parts = [part for part in PARTS if part != without]
    parts = [parts[place] for place in rng.permutation(len(parts))]
    for count in range(1, len(parts) + 1):
        for chosen in itertools.combinations(parts, count):
            described = {part: getattr(scene.things[thing], part) for part in chosen}
            if sum(fits(other, described) for other in scene.things) == 1:
                yield described


def _place(scene: Scene, thing: int) -> str:
    if thing < 2:
        return _PLACES[scene.relation][thing]
    assert scene.third is not None
    return _PLACE_OF_THIRD[THIRD[scene.relation, scene.third]]


def _any_thing(level: Level, rng: numpy.random.Generator) -> Thing:
    values = {**PARTS, "colour": level.colours}
    return Thing(**{part: words[rng.integers(len(words))] for part, words in values.items()})
