"""Several texts of one sample: their probabilities, and the draw of one in training.

A row with `texts` is trained with one of them, drawn anew in each turn by seed, dataset and row, as
augmentation is, so that a resumed run draws what the whole one would. Evaluations read its
`text_input`, the first text of the first source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy

from lavis_lite.errors import ConfigError

_TOLERANCE = 1e-6  # of a sum of probabilities


class Texts(NamedTuple):
    """The texts of a sample with their sources; the probabilities add up to 1."""

    texts: list[str]
    sources: list[str]
    probabilities: list[float]


def probabilities(shares: Mapping[str, Any], where: str) -> dict[str, float]:
    """Return the probability of each source of texts, without those that are never drawn.

    Args:
        shares: `{web: 0.3, synthetic: 0.7}`.
        where: the key of the config, for messages.

    Raises:
        ConfigError: there are none, some are no numbers in [0, 1], or they do not add up to 1.
    """
    if not shares:
        raise ConfigError(f"{where}: no sources; {{web: 0.3, synthetic: 0.7}} is an example")
    for name, value in shares.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= 1:
            raise ConfigError(f"{where}.{name}: a probability in [0, 1] is expected, not {value!r}")
    total = math.fsum(shares.values())
    if abs(total - 1) > _TOLERANCE:
        scaled = {name: round(value / total, 4) for name, value in shares.items()} if total else {}
        hint = f"; in these proportions: {scaled}" if scaled else ""
        raise ConfigError(f"{where}: the probabilities add up to {total:g}, not to 1{hint}")
    return {name: float(value) for name, value in shares.items() if value}


def text_fields(found: Mapping[str, Sequence[str]], shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields of a row that has several texts: `text_input`, `text_source`, `texts`.

    The texts of one source share its probability equally. The probability of a source without a
    text, or with empty ones alone, goes to the others in proportion.

    Args:
        found: source -> its texts of this sample.
        shares: source -> probability, see `probabilities`.

    Returns:
        The fields; nothing where no source has a text.
    """
    whole = {name: [text for text in found.get(name, ()) if text.strip()] for name in shares}
    total = math.fsum(shares[name] for name, texts in whole.items() if texts)
    listed = [
        (text, name, shares[name] / total / len(texts))
        for name, texts in whole.items()
        for text in texts
    ]
    if not listed:
        return {}
    texts = Texts(*map(list, zip(*listed, strict=True)))
    return {"text_input": texts.texts[0], "text_source": texts.sources[0], "texts": texts}


def draw_text(row: dict[str, Any], rng: numpy.random.Generator) -> dict[str, Any]:
    """Return a row with one of its texts, drawn by their probabilities: a dataset's `augment`.

    Args:
        row: as the dataset gives it; one without several texts is returned as it is.
        rng: of the sample; one number is drawn from it.
    """
    texts = row.get("texts")
    if not isinstance(texts, Texts):  # a field of the user's may have this name
        return row
    ends = numpy.cumsum(texts.probabilities)
    place = min(int(numpy.searchsorted(ends, rng.random(), side="right")), len(ends) - 1)
    drawn = {"text_input": texts.texts[place], "text_source": texts.sources[place]}
    return {**{name: value for name, value in row.items() if name != "texts"}, **drawn}
