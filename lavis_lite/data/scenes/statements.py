"""Statements about two scenes, true or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy

from lavis_lite.data.scenes.questions import Description, a_or_an, describe_some, fits, name
from lavis_lite.data.scenes.world import Scene, Thing

KINDS = ("shows", "any", "both", "neither", "count", "more", "background", "same_background")
_SIDES = ("left", "right")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")

_ATTEMPTS = 10

Pair = tuple[Scene, Scene]


class Statement(NamedTuple):
    """A sentence about a left and a right image, of one of `KINDS`, and when it is true.

    Left and right mean the images and nothing in them, so that the images may be exchanged with
    the words.
    """

    text: str
    kind: str
    holds: Callable[[Pair], bool]


def state(pair: Pair, rng: numpy.random.Generator) -> Statement:
    """A statement that is true of this pair."""
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        for _ in range(_ATTEMPTS):
            statement = _STATE[kind](pair, rng)
            if statement.holds(pair):
                return statement


def _shown(scene: Scene, described: Description) -> int:
    """Count the things of a scene that fit a description."""
    return sum(fits(thing, described) for thing in scene.things)


def _a_thing(pair: Pair, rng: numpy.random.Generator) -> Thing:
    scene = pair[rng.integers(2)]
    return scene.things[rng.integers(len(scene.things))]


def _shows(pair: Pair, rng: numpy.random.Generator) -> Statement:
    side = int(rng.integers(2))
    things = pair[side].things
    described = describe_some(things[rng.integers(len(things))], int(rng.integers(1, 3)), rng)
    text = f"the {_SIDES[side]} image shows {a_or_an(described)}"
    return Statement(text, "shows", lambda other: _shown(other[side], described) > 0)


def _any(pair: Pair, rng: numpy.random.Generator) -> Statement:
    described = describe_some(_a_thing(pair, rng), 2, rng)
    return Statement(
        f"at least one image shows {a_or_an(described)}",
        "any",
        lambda other: any(_shown(scene, described) for scene in other),
    )


def _both(pair: Pair, rng: numpy.random.Generator) -> Statement:
    described = describe_some(_a_thing(pair, rng), 1, rng)
    return Statement(
        f"both images show {a_or_an(described)}",
        "both",
        lambda other: all(_shown(scene, described) for scene in other),
    )


def _neither(pair: Pair, rng: numpy.random.Generator) -> Statement:
    # The parts of two things of the pair make up a third, which is not there more often than not.
    one, other = _a_thing(pair, rng), _a_thing(pair, rng)
    described = describe_some(
        Thing(one.size, other.colour, one.shape), int(rng.integers(1, 3)), rng
    )
    return Statement(
        f"neither image shows {a_or_an(described)}",
        "neither",
        lambda them: not any(_shown(scene, described) for scene in them),
    )


def _count(pair: Pair, rng: numpy.random.Generator) -> Statement:
    described = describe_some(_a_thing(pair, rng), 1, rng)
    number = sum(_shown(scene, described) for scene in pair)
    verb = "is" if number == 1 else "are"
    return Statement(
        f"there {verb} {_NUMBERS[number]} {name(described, plural=number != 1)} in all",
        "count",
        lambda other: sum(_shown(scene, described) for scene in other) == number,
    )


def _more(pair: Pair, rng: numpy.random.Generator) -> Statement:
    described = describe_some(_a_thing(pair, rng), 1, rng)
    side = int(rng.integers(2))
    text = (
        f"there are more {name(described, plural=True)} in the {_SIDES[side]} image"
        f" than in the {_SIDES[1 - side]} one"
    )
    return Statement(
        text,
        "more",
        lambda other: _shown(other[side], described) > _shown(other[1 - side], described),
    )


def _background(pair: Pair, rng: numpy.random.Generator) -> Statement:
    side = int(rng.integers(2))
    ground = pair[side].background
    return Statement(
        f"the background of the {_SIDES[side]} image is {ground}",
        "background",
        lambda other: other[side].background == ground,
    )


def _same_background(pair: Pair, rng: numpy.random.Generator) -> Statement:
    same = pair[0].background == pair[1].background
    return Statement(
        f"the backgrounds of the two images are {'the same' if same else 'different'}",
        "same_background",
        lambda other: (other[0].background == other[1].background) == same,
    )


_STATE: dict[str, Callable[[Pair, numpy.random.Generator], Statement]] = {
    "shows": _shows,
    "any": _any,
    "both": _both,
    "neither": _neither,
    "count": _count,
    "more": _more,
    "background": _background,
    "same_background": _same_background,
}
