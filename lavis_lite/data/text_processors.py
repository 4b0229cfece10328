"""Texts as BLIP reads them: lower case, some punctuation out, at most so many words."""

from __future__ import annotations

import logging
import re
from typing import Literal

import numpy

from lavis_lite import registry
from lavis_lite.errors import ConfigError

logger = logging.getLogger(__name__)
_LOG_EVERY = 1000
_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")
# After a mark that ends a part and before the space that follows it: not within 3.5 or 1,000.
_ENDS = {"sentence": re.compile(r"(?<=[.!?])\s+"), "clause": re.compile(r"(?<=[.!?,;:])\s+")}


@registry.register("processor", "blip_caption")
class BlipCaption:
    """A caption, cleaned and cut to `max_words`, after a prompt.

    Commas, question marks, apostrophes and hyphens stay. BLIP pre-trains with 30 words, trains
    NLVR with 40, and everything else with 50. What is longer is cut, with a warning at the first
    and every 1000th.

    Args:
        prompt: put before the caption as it is ("a picture of ").
        max_words: the longest caption, in words.

    Reference: `pre_caption` of the original BLIP, data/utils.py.
    """

    def __init__(self, prompt: str = "", max_words: int = 50):
        self.prompt = prompt
        self._cut = WordLimit("captions", max_words)

    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        text = _SPACES.sub(" ", _PUNCTUATION.sub(" ", one_text(text).lower()))
        return self.prompt + self._cut(text.rstrip("\n").strip(" "))


@registry.register("processor", "sub_caption")
class SubCaption:
    """A part of a long caption, drawn anew in each turn, cleaned as `blip_caption` does.

    From 1 to `parts` sentences or clauses are drawn and stay in their order; a caption that has no
    more than one is taken whole. Short parts of long synthetic captions train contrastive losses
    better than the whole (CLIPS, arXiv 2411.16828). It belongs under `text: {train: ...}`: without
    a random generator, as in metrics, the caption is taken whole.

    Args:
        parts: the most parts that are drawn; each number is as likely.
        by: `sentence`, which a full stop, a question or exclamation mark ends; or `clause`, which a
            comma, semicolon or colon ends as well.
        whole: probability of taking the caption whole.
        prompt, max_words: as of `blip_caption`.

    Raises:
        ConfigError: `parts` below 1, or `whole` outside [0, 1].
    """

    def __init__(
        self,
        parts: int = 1,
        by: Literal["sentence", "clause"] = "sentence",
        whole: float = 0.0,
        prompt: str = "",
        max_words: int = 50,
    ):
        if parts < 1:
            raise ConfigError(f"sub_caption.parts: {parts}; at least 1")
        if not 0 <= whole <= 1:
            raise ConfigError(f"sub_caption.whole: {whole}; a probability in [0, 1] is expected")
        self.parts, self.whole = parts, whole
        self._ends = _ENDS[by]
        self._clean = BlipCaption(prompt, max_words)

    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        parts = [part for part in self._ends.split(text) if part.strip()]
        if rng is None or len(parts) < 2 or rng.random() < self.whole:
            return self._clean(text)
        number = int(rng.integers(1, min(self.parts, len(parts)) + 1))
        places = sorted(rng.choice(len(parts), number, replace=False))
        return self._clean(" ".join(parts[place].strip() for place in places))


@registry.register("processor", "blip_question")
class BlipQuestion:
    """A question, cleaned and cut to `max_words`; unlike in a caption, punctuation leaves no gap.

    Reference: `pre_question` of the original BLIP, data/utils.py.
    """

    def __init__(self, max_words: int = 50):
        self._cut = WordLimit("questions", max_words)

    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        return self._cut(_PUNCTUATION.sub("", one_text(text).lower()).rstrip(" "))


def one_text(text: object) -> str:
    """Return a text as it is.

    Raises:
        ConfigError: anything else, such as several texts.
    """
    if not isinstance(text, str):
        raise ConfigError(
            f"text: {type(text).__name__} {text!r:.60}; one text is expected: a processor takes "
            "them one by one"
        )
    return text


class WordLimit:
    """Cut texts to their first words, and say so now and then.

    Args:
        what: the texts' name in the log.
        max_words: words kept, counted by single spaces as the original does.
    """

    def __init__(self, what: str, max_words: int):
        self.what, self.max_words, self.num_cut = what, max_words, 0

    def __call__(self, text: str) -> str:
        words = text.split(" ")
        if len(words) <= self.max_words:
            return text
        self.num_cut += 1
        if self.num_cut == 1 or self.num_cut % _LOG_EVERY == 0:
            logger.warning(
                "%s longer than max_words=%d are cut, %d so far; this one has %d words: %.60s...",
                *(self.what, self.max_words, self.num_cut, len(words), text),
            )
        return " ".join(words[: self.max_words])
