"""The threshold that a wanted precision takes, from texts of which it is known whether they fit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.projects.blip.capfilt.cuts import Share, cut_at, share, stratum_weights
from lavis_lite.projects.blip.capfilt.labels import LABELS, read_labels, verdicts
from lavis_lite.projects.blip.selection.config import PoolConfig

log = logging.getLogger(__name__)
Verdicts = dict[tuple[str, int], bool]  # (key, place) -> whether the text fits


class Judged(NamedTuple):
    """Scores of texts with verdicts, and of a sample of all texts.

    Attributes:
        scores: (J,) of the judged ones.
        fits: (J,) bool.
        sample: (S,) of all that the rule meets, judged or not.
        keys: of the judged ones that people judged, as ``key/place``.
    """

    scores: numpy.ndarray
    fits: numpy.ndarray
    sample: numpy.ndarray
    keys: list[str]


class Threshold(NamedTuple):
    """A threshold, and the precision and recall that the judged texts show for it."""

    limit: float
    precision: Share
    recall: Share
    judged: int


def verdicts_of(data: PoolConfig, records: Path) -> Verdicts:
    """Return what people say of texts; nothing where the run has no labels.

    Raises:
        DataError: a file of labels that is named cannot be read.
    """
    if data.labels is None and not (records / LABELS).is_dir():
        return {}
    return verdicts(read_labels(data.labels if data.labels is not None else records))


def check_known(data: PoolConfig, known: Verdicts, where: str) -> None:
    """Check that there is something to measure a precision by.

    Raises:
        ConfigError: neither labels nor a field with the truth.
    """
    if not known and not (data.label is not None and data.right):
        raise ConfigError(
            f"{where}.precision: nothing is known about the texts: label some with `lavis-lite "
            "review`, or name a field with the truth in data.label and data.right"
        )


def save(judged: Judged, path: Path) -> None:
    """Write what a block has."""
    arrays = judged._asdict() | {"keys": numpy.array(judged.keys, dtype=str)}
    with path.open("wb") as file:
        numpy.savez(file, **arrays)


def load(path: Path) -> Judged:
    """Read what `save` wrote."""
    with numpy.load(path, allow_pickle=False) as found:
        return Judged(found["scores"], found["fits"], found["sample"], found["keys"].tolist())


def together(parts: Iterable[Judged]) -> Judged:
    """Return the judged texts of all blocks."""
    every = list(parts)
    return Judged(
        numpy.concatenate([part.scores for part in every]),
        numpy.concatenate([part.fits for part in every]).astype(bool),
        numpy.concatenate([part.sample for part in every]),
        [key for part in every for key in part.keys],
    )


def threshold(wanted: float, judged: Judged, where: str, *, sure: bool) -> Threshold:
    """Return the lowest threshold with a precision: the one that keeps most.

    Judged texts count for what they stand for, see `stratum_weights`: people look at texts near a
    cut more often than at others.

    Args:
        wanted: precision, in (0, 1].
        judged: of all blocks.
        where: the rule, for messages.
        sure: the lower end of the interval of 95 % has to reach it, not the share itself.

    Raises:
        DataError: no threshold reaches it, or nothing was judged.
    """
    if not len(judged.scores):
        raise DataError(f"{where}: no text that comes to this rule was judged and has the score")
    weights = stratum_weights(judged.sample, judged.scores)
    order = numpy.argsort(-judged.scores, kind="stable")
    ranked, heavy = judged.scores[order], weights[order]
    right = numpy.cumsum(heavy * judged.fits[order])
    number, squares = numpy.cumsum(heavy), numpy.cumsum(heavy**2)
    last = numpy.flatnonzero(numpy.append(ranked[1:] != ranked[:-1], True))
    worth = number**2 / squares  # as many equal cases (Kish, Survey Sampling, 1965)
    shares = [share(float(worth[n] * right[n] / number[n]), float(worth[n])) for n in last]
    reached = [one.low if sure else (one.value or 0.0) for one in shares]
    enough = [place for place, value in zip(last, reached, strict=True) if value >= wanted]
    if not enough:
        best = max(reached)
        what = "the lower end of the interval" if sure else "the precision"
        raise DataError(
            f"{where}: no threshold has a precision of {wanted:g} on the {len(ranked):,} judged "
            f"texts: {what} is {best:.3f} at best, with scores from {ranked[-1]:g} to "
            f"{ranked[0]:g}"
        )
    limit = float(ranked[enough[-1]])
    effect = cut_at(limit, judged.sample, judged.scores, judged.fits)
    return Threshold(limit, effect.precision, effect.recall, len(ranked))


def tell_missing(known: Verdicts, found: Iterable[str], where: str) -> int:
    """Warn of labels whose keys the records don't have; returns how many.

    Raises:
        DataError: that is all of them.
    """
    missing = sorted({f"{key}/{place}" for key, place in known} - set(found))
    if not missing:
        return 0
    said = f"{len(missing):,} of {len(known):,} labels are of texts that the records don't have"
    if len(missing) == len(known):
        raise DataError(f"{where}: all {said}, such as {missing[0]!r}: are they of another run?")
    log.warning("%s: %s, such as %r", where, said, missing[0])
    return len(missing)
