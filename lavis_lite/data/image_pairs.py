"""NLVR2: sentences about two photographs, true or false."""

from __future__ import annotations

import re
from typing import Any

import numpy

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def exchange(row: dict[str, Any], rng: numpy.random.Generator) -> dict[str, Any]:
    """In training, every second time the two images in the other order, left and right with them.

    As the original BLIP does (data/nlvr_dataset.py); there in evaluation too, which made its
    accuracy random.
    """
    if rng.random() < 0.5:
        return row
    text = _SIDE.sub(lambda word: _OTHER[word[0].lower()], row["text_input"])
    return {**row, "image0": row["image1"], "image1": row["image0"], "text_input": text}
