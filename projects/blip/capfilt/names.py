"""The names of captioners and scores in the records, and what is wrong with them before a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from lavis_lite import registry
from lavis_lite.errors import UnknownName, suggest
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig, Captioner, Scorer
from lavis_lite.projects.blip.capfilt.texts import CAPTIONER, WEB
from lavis_lite.registry.capabilities import lacks

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
Span = tuple[float, float] | None


def captioners(config: CapfiltConfig) -> dict[str, Captioner]:
    """Return the captioners of a run by the names that their texts are stored under."""
    if config.captioner is None:
        return {}
    if isinstance(config.captioner, list):
        return {one.called or one.name.replace("/", "-"): one for one in config.captioner}
    return {config.captioner.called or CAPTIONER: config.captioner}


def scorers(listed: Sequence[Scorer]) -> dict[str, Scorer]:
    """Return scorers by the names that their scores are stored under."""
    return {one.called or one.name.replace("/", "-"): one for one in listed}


def is_plural(config: CapfiltConfig) -> bool:
    """Tell whether a run writes records of version 2: with sources, and scores by name."""
    several = isinstance(config.captioner, list)
    named = isinstance(config.captioner, Captioner) and config.captioner.called is not None
    return several or named or bool(config.scorers)


def spans(name: str, scorer: object) -> dict[str, Span]:
    """Return the names of all scores of a scorer, or its class, with the range of each.

    Args:
        name: that its scores are stored under; each part's is put behind it.
        scorer: with ``span``, or ``parts``.
    """
    parts: Mapping[str, Span] | None = getattr(scorer, "parts", None)
    if parts is None:
        return {name: getattr(scorer, "span", None)}
    return {f"{name}_{part}": span for part, span in parts.items()}


def score_names(listed: Sequence[Scorer], of: str) -> list[str]:
    """Return the names of all scores of texts, or of images, that scorers give.

    Args:
        listed: of a config.
        of: ``text`` or ``image``.
    """
    return [
        score
        for name, one in scorers(listed).items()
        if (built := registry.get("scorer", one.name)).of == of  # type: ignore[attr-defined]
        for score in spans(name, built)
    ]


def captioner_problems(config: CapfiltConfig) -> Iterator[str]:
    """Yield what is wrong with the names of a run's captioners."""
    if config.captioner is None:
        return
    if config.captioner == []:
        yield "captioner: an empty list; name a captioner, or write null to write no texts"
    listed = config.captioner if isinstance(config.captioner, list) else [config.captioner]
    names = [one.called or one.name.replace("/", "-") for one in listed]
    yield from _name_problems("captioner", names)
    if WEB in names:
        yield f"captioner: {WEB!r} is what the text of the source is called; choose another name"


def scorer_problems(
    listed: Sequence[Scorer], has_captions: bool, taken: Iterable[str] = ()
) -> Iterator[str]:
    """Yield what is wrong with scorers, as far as their classes and those of their models tell.

    Args:
        listed: of a config.
        has_captions: whether there are synthetic texts.
        taken: names of scores that are there without them.
    """
    names = [one.called or one.name.replace("/", "-") for one in listed]
    yield from _name_problems("scorers", names)
    found: Counter[str] = Counter(taken)
    for place, (name, one) in enumerate(zip(names, listed, strict=True)):
        where = f"scorers[{place}]"
        try:
            built: object = registry.get("scorer", one.name)
        except UnknownName as error:
            yield f"{where}.name: {error}"
            continue
        found.update([*spans(name, built)])
        if getattr(built, "of", None) not in ("text", "image"):
            yield f"{where}: scorer {one.name!r} must say `of`, text or image"
        yield from _model_problems(where, one, built)
        if "captions" in getattr(built, "reads", ()) and not has_captions:
            yield (
                f"{where}: {one.name} compares texts with captions, and this run writes none; "
                "give a captioner, or leave this score out"
            )
    if not any(names.count(name) > 1 for name in names):
        for score in sorted(score for score, count in found.items() if count > 1):
            yield f"scorers: a score named {score!r} is there already; give one of them `called`"


def _model_problems(where: str, one: Scorer, built: object) -> Iterator[str]:
    required = getattr(built, "requires", ())
    if one.model is None:
        if required:
            yield f"{where}.model: scorer {one.name!r} needs a model, {where}.model={{name: ...}}"
        return
    if "model" not in registry.entry("scorer", one.name).parameters:
        yield f"{where}.model: scorer {one.name!r} computes without a model; take it away"
        return
    model = registry.entry("model", one.model.name).result
    if model is not None and (missing := lacks(model, required)):
        yield (
            f"{where}.model: scorer {one.name!r} needs {', '.join(missing)}, which model "
            f"{one.model.name!r} ({model.__name__}) lacks"
        )


def _name_problems(key: str, names: Sequence[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        places = ", ".join(f"{key}[{n}]" for n, one in enumerate(names) if one == name)
        yield f"{places}: all are stored as {name!r}; tell them apart: called: {name}_2"
    for name in names:
        if not _NAME.fullmatch(name):
            fixed = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "score"
            yield (
                f"{key}: {name!r} is no name for a column: letters, digits, _ and - only."
                f"{suggest(name, [fixed]) or f' Such as {fixed!r}.'}"
            )
