"""A word before training: how much of the texts the model's vocabulary does not know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from lavis_lite import distributed
from lavis_lite.errors import DataError
from lavis_lite.modules.interfaces import RowDataset
from lavis_lite.modules.text.coverage import coverage

logger = logging.getLogger(__name__)
LOOKED_AT = 1000  # texts of each dataset
TOLERATED = 0.01  # share of unknown words


def tell_unknown_words(
    model: object, datasets: Sequence[RowDataset], process: Callable[[str], str]
) -> None:
    """Warn where more than one in a hundred words of the training texts would be read as [UNK].

    Args:
        model: with a ``tokenizer``, else nothing is looked at.
        datasets: opened; up to 1,000 texts of each are read, evenly spread, without images.
        process: the text processor of training.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None or not distributed.is_main():
        return
    for number, dataset in enumerate(datasets):
        found = coverage(tokenizer, (process(text) for text in _texts(dataset)))
        if found.share > TOLERATED:
            logger.warning(
                "data.train[%d]: %.1f %% of the words are unknown to the model's tokenizer and "
                "read as [UNK], such as %s; `lavis-lite vocabulary TEXTS --out FOLDER` makes a "
                "vocabulary of your texts, which `model.tokenizer=FOLDER` takes",
                number,
                100 * found.share,
                ", ".join(repr(word) for word in list(found.unknown)[:3]),
            )


def _texts(dataset: RowDataset) -> Iterator[str]:
    read = getattr(dataset, "annotation", None)
    if read is None:  # rows come with their images, which are not worth decoding for this
        return
    for index in range(0, len(dataset), max(1, len(dataset) // LOOKED_AT)):
        try:
            text = read(index).get("text_input")
        except DataError:
            continue  # it is set aside when it is trained on
        if isinstance(text, str):
            yield text
