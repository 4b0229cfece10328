"""Texts as BLIP reads them: lower case, some punctuation out, at most so many words."""

from __future__ import annotations

import logging
import re

import numpy

from lavis_lite import registry
from lavis_lite.errors import ConfigError

logger = logging.getLogger(__name__)
_LOG_EVERY = 1000
_PUNCTUATION = re.compile(r"[.!\"()*#:;~]")
_SPACES = re.compile(r"\s{2,}")


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
