"""A block of the pool, and the rules applied to it as far as the passes have come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from lavis_lite.projects.blip.capfilt.texts import WEB
from lavis_lite.projects.blip.selection import cuts, moments
from lavis_lite.projects.blip.selection.pool import FIELD, SCORE, read_column
from lavis_lite.projects.blip.selection.repeats import read_repeats
from lavis_lite.projects.blip.selection.rules import Fusion, Keep, Rule

if TYPE_CHECKING:
    import pyarrow as pa

UNSOUND = -1  # dropped before any rule: an empty text, or one that its image has already
CHOSEN = -2


class Block:
    """The columns of a block, read when they are asked for.

    Args:
        path: of its table.
        number: of the block.
        fusions: fused scores by name.
        stats: statistics of all scores over the pool.
    """

    def __init__(
        self,
        path: Path,
        number: int,
        fusions: Mapping[str, Fusion],
        stats: Mapping[str, moments.Moments],
    ) -> None:
        self.path, self.number = path, number
        self.stats = dict(stats)
        self._fusions = fusions
        self._read: dict[str, pa.Array] = {}
        self._scores: dict[str, numpy.ndarray] = {}

    def column(self, name: str) -> pa.Array:
        """A column, see `block_table`."""
        if name not in self._read:
            self._read[name] = read_column(self.path, name)
        return self._read[name]

    def numbers(self, name: str) -> numpy.ndarray:
        """A column of numbers or truth values, without gaps."""
        return self.column(name).to_numpy(zero_copy_only=False)

    def score(self, name: str) -> numpy.ndarray:
        """(T,) float64, of the records or fused; NaN where a text has none."""
        if name not in self._scores:
            if name in self._fusions:
                fusion = self._fusions[name]
                parts = {part: self.score(part) for part in fusion.weights}
                self._scores[name] = moments.fused(fusion, parts, self.stats)
            else:
                own = self.column(f"{SCORE}{name}").to_numpy(zero_copy_only=False)
                self._scores[name] = own.astype(float)
        return self._scores[name]

    @property
    def sound(self) -> numpy.ndarray:
        """(T,) bool: neither empty nor there before at its image."""
        return self.numbers("sound")

    def of(self, origin: str) -> numpy.ndarray:
        """(T,) bool: the texts of an origin."""
        is_web = self.numbers("place") == 0
        return {"web": is_web, "synthetic": ~is_web}.get(origin, numpy.ones(len(is_web), bool))

    def strata(self, by: str | None) -> numpy.ndarray:
        """(T,) the names of the texts' strata."""
        if by is None:
            return numpy.full(len(self.sound), cuts.WHOLE)
        name = "source" if by == "source" else f"{FIELD}{by}"
        return numpy.array(self.column(name).fill_null("null").to_pylist(), dtype=str)


class Reduced(NamedTuple):
    """The findings of the passes for a rule, in all blocks."""

    cuts: dict[str, cuts.Cut] | None = None  # of a fraction
    limit: float | None = None  # of a precision
    repeats: Path | None = None  # what goes, of duplicates and caps


def fails(block: Block, rule: Rule, found: Reduced, alive: numpy.ndarray) -> numpy.ndarray:
    """Tell which texts a rule drops, (T,) bool; of duplicates and fractions, only living ones.

    Args:
        block: of the pool.
        rule: to apply.
        found: by the passes for this rule.
        alive: (T,) the texts that come to the rule.
    """
    meant = block.of(rule.of)
    if rule.kind == "kept":
        return meant & (block.numbers("kept") != rule.kept)
    if rule.kind in ("duplicates", "most_per_text"):
        assert found.repeats is not None
        gone = numpy.zeros(len(meant), bool)
        rows = read_repeats(found.repeats, block.number)
        if rule.duplicates == "images":
            gone = numpy.isin(block.numbers("image_row"), rows)
        else:
            gone[rows] = True
        return gone
    assert rule.score is not None
    score = block.score(rule.score)
    missing = numpy.isnan(score)
    if rule.kind == "fraction":
        assert found.cuts is not None
        reached = meant & alive & ~missing
        places = numpy.flatnonzero(reached)
        strata = block.strata(rule.by)[places]
        stays = cuts.stays(cuts.codes_of(score[places]), strata, found.cuts, block.number)
        below = numpy.zeros(len(score), bool)
        below[places[~stays]] = True
    else:
        low = found.limit if rule.kind == "precision" else rule.min
        below = numpy.zeros(len(score), bool)
        with numpy.errstate(invalid="ignore"):
            if low is not None:
                below |= score < low
            if rule.max is not None:
                below |= score > rule.max
    return meant & (below | (missing if rule.missing == "drop" else False))


def applied(
    block: Block, rules: Sequence[Rule], reduced: Sequence[Reduced]
) -> tuple[numpy.ndarray, list[numpy.ndarray]]:
    """Apply rules in order.

    Returns:
        (T,) number of the rule that dropped each text, ``UNSOUND``, or ``CHOSEN`` if none did; and
        for each rule which texts it fails, see `fails`.
    """
    fate = numpy.where(block.sound, CHOSEN, UNSOUND).astype(numpy.int16)
    failing = []
    for number, (rule, found) in enumerate(zip(rules, reduced, strict=True)):
        alive = fate == CHOSEN
        failing.append(fails(block, rule, found, alive) & block.sound)
        fate[alive & failing[-1]] = number
    return fate, failing


def kept_of_images(
    block: Block, passed: numpy.ndarray, keep: Keep, by: str | None
) -> numpy.ndarray:
    """Choose among the texts of each image that passed all rules: (T,) bool.

    Args:
        block: of the pool.
        passed: (T,) bool.
        keep: how many, and whether the web's text goes first.
        by: the score that tells the best; among equal ones the first.
    """
    image = block.numbers("image_row")
    chosen = passed.copy()
    if keep.web_first:
        has_web = numpy.zeros(int(image.max(initial=-1)) + 1, bool)
        has_web[image[passed & block.of(WEB)]] = True
        chosen &= ~has_web[image] | block.of(WEB)
    if keep.number is not None:
        assert by is not None
        places = numpy.flatnonzero(chosen)
        score = numpy.nan_to_num(block.score(by)[places], nan=-numpy.inf)
        order = numpy.lexsort((places, -score, image[places]))
        ranked = places[order]
        groups = image[ranked]
        first = numpy.flatnonzero(numpy.append(True, groups[1:] != groups[:-1])[: len(groups)])
        rank = numpy.arange(len(ranked)) - numpy.repeat(
            first, numpy.diff(numpy.append(first, len(ranked)))
        )
        chosen[ranked[rank >= keep.number]] = False
    return chosen


def chosen_table(block: Block, chosen: numpy.ndarray, why: str, scores: Sequence[str]) -> pa.Table:
    """Return the chosen texts: key, shard, index, place, source, text, why, and their scores."""
    import pyarrow as pa

    rows = pa.array(numpy.flatnonzero(chosen))
    columns: dict[str, Any] = {
        name: block.column(name).take(rows)
        for name in ("key", "shard", "index", "place", "source", "text")
    }
    columns["why"] = pa.array([why] * len(rows), pa.string()).dictionary_encode()
    for name in scores:
        columns[f"score_{name}"] = pa.array(block.score(name)[chosen], from_pandas=True)
    return pa.table(columns)
