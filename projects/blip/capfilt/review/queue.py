"""The text that is judged next: near a cut, spread over the scores, or as they come; some only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy

from lavis_lite.data.seeding import generator
from lavis_lite.errors import DataError, suggest
from lavis_lite.projects.blip.capfilt.review.index import TextIndex

Order = Literal["cut", "spread", "run"]
_STRATA = 10


@dataclass(frozen=True)
class Choice:
    """The texts to judge and their order.

    Attributes:
        order: ``cut``, those whose score is nearest to the cut first; ``spread``, a sample
            stratified by score: from each tenth of the scores in turn one by chance; ``run``, as
            the run has them.
        score: name of a scorer.
        cut: a score.
        of: ``all``, ``web``, ``synthetic`` or a captioner.
        reason: only texts with this verdict of the run's filter; empty for all.
        words: only texts that hold all of these words, or parts of words.
        seed: of the sample.
    """

    order: Order = "cut"
    score: str | None = None
    cut: float = 0.5
    of: str = "all"
    reason: str = ""
    words: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in (known := get_args(Order)):
            raise DataError(
                f"no order {self.order!r:.60}.{suggest(self.order, known)} Known: {list(known)}"
            )


def queue(index: TextIndex, choice: Choice) -> numpy.ndarray:
    """Return the numbers of the texts of a choice, in its order.

    Texts without a number from the scorer are left out of the orders that follow scores.

    Raises:
        DataError: the run has no such score, source or verdict.
    """
    chosen = index.of(choice.of)
    if choice.reason:
        if choice.reason not in index.reasons:
            known = list(index.reasons)
            hint = suggest(choice.reason, known)
            raise DataError(f"no verdict {choice.reason!r:.80}.{hint} Known: {known}")
        chosen &= index.reason == index.reasons.index(choice.reason)
    if choice.order != "run" and choice.score is not None:
        chosen &= ~numpy.isnan(index.score(choice.score))
    if choice.words.strip():
        chosen &= index.holding_words(choice.words)
    numbers = numpy.flatnonzero(chosen)
    if choice.order == "run" or choice.score is None or not len(numbers):
        return numbers
    scores = index.score(choice.score)[numbers]
    if choice.order == "cut":
        return numbers[numpy.argsort(abs(scores - choice.cut), kind="stable")]
    return numbers[_spread(scores, choice.seed)]


def _spread(scores: numpy.ndarray, seed: int) -> numpy.ndarray:
    """Return places so that each ten in a row are one by chance of each tenth of the scores."""
    ranked = numpy.argsort(scores, kind="stable")
    rng = generator("review", seed)
    strata = [rng.permutation(part) for part in numpy.array_split(ranked, _STRATA)]
    turn = numpy.concatenate([numpy.arange(len(part)) for part in strata])
    return numpy.concatenate(strata)[numpy.argsort(turn, kind="stable")]
