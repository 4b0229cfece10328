"""The language of the scenes: how a picture is described, and how a text is read back."""

from __future__ import annotations

import re

import numpy

from lavis_lite.data.scenes.world import (
    BACKGROUNDS,
    COLOURS,
    INVERSE,
    ORDINALS,
    RELATIONS,
    SHAPES,
    SIZES,
    THIRD,
    Scene,
    Spellings,
)

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
    """Return the facts that a text states about a scene, whatever its template and wording.

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
    facts = {f"background={value}" for value in background}
    facts |= {f"{name}={value}" for name, value in zip(_RELATION_NAMES, relations, strict=False)}
    for ordinal, thing in zip(ORDINALS, things, strict=False):
        facts |= {f"{ordinal}.{part}={value}" for part, value in thing.items()}
    return frozenset(facts)


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
