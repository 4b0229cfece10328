"""Cheap facts of a text: how long it is, how repetitive, how much of it says nothing."""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar

from lavis_lite import registry
from lavis_lite.projects.blip.capfilt.names import Span
from lavis_lite.projects.blip.capfilt.scoring import ScoreBatch

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+")
# Function words of English: articles, pronouns, prepositions, conjunctions, auxiliary verbs.
_LISTED = """
a about above across after again against all along also although am among an and any are around
as at be because been before behind being below beneath beside between both but by can could did
do does doing down during each either few for from further had has have having he her here hers
him his how i if in inside into is it its itself just may me might more most much must my near
neither no nor not of off on once one only onto or other our ours out outside over own per same
shall she should since so some such than that the their theirs them themselves then there these
they this those through to too toward towards under until up upon us very was we were what when
where which while who whom whose why will with within without would you your yours
"""
STOP_WORDS = frozenset(_LISTED.split())


@registry.register("scorer", "text_statistics")
class TextStatistics:
    """Facts of a text, each a score of its own: ``NAME_words`` and so on.

    ``words`` and ``characters`` are counts. ``repetition`` is the share of its words that were
    there before in the text, ``stop_words`` the share of words such as "the" or "of" (English),
    ``digits`` the share of characters that are digits; all in [0, 1], 0 of a text without words.
    """

    of = "text"
    parts: ClassVar[dict[str, Span]] = {
        "words": (0.0, 50.0),
        "characters": (0.0, 250.0),
        "repetition": (0.0, 1.0),
        "stop_words": (0.0, 1.0),
        "digits": (0.0, 1.0),
    }

    def score(self, batch: ScoreBatch) -> list[dict[str, float]]:
        """Return the facts of each text of a batch."""
        return [facts(pair.text) for pair in batch.pairs]


def facts(text: str) -> dict[str, float]:
    """Return the facts of a text by the names of `TextStatistics.parts`."""
    words = _WORD.findall(text.casefold())
    of_words = max(1, len(words))
    return {
        "words": len(words),
        "characters": len(text),
        "repetition": sum(n - 1 for n in Counter(words).values()) / of_words,
        "stop_words": sum(word in STOP_WORDS for word in words) / of_words,
        "digits": sum(map(str.isdigit, text)) / max(1, len(text)),
    }
