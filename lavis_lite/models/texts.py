"""Texts as a model takes them, or an error that says what they should be: never letter by letter.

One text stands for a list of one; where texts belong to images, for the same text with each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from typing import Protocol, cast

from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.models.tensors import as_ids, as_mask
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import kind_of, needed
from lavis_lite.modules.text.text_batch import TextBatch

RankTexts = str | Sequence[str] | Sequence[Sequence[str]] | TextBatch


class ReadsTexts(Protocol):
    """A model with a tokenizer."""

    @property
    def tokenizer(self) -> Sized:
        """The words that it knows."""
        ...

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        ...


def as_texts(texts: object, name: str = "text") -> list[str]:
    """Return one text, or several, as a list.

    Args:
        texts: a str; or a list, tuple, array, column or iterator of such.
        name: of the argument, for messages.

    Raises:
        ConfigError: anything else; the message names the first that is no text.
    """
    if isinstance(texts, str):
        return [str(texts)]
    found = _listed(texts)
    if found is None:
        raise ConfigError(f"{name}: {kind_of(texts)}; a text or a list of texts is expected")
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise ConfigError(
                f"{name}[{place}]: {kind_of(text)}; a text is expected, such as {_as_text(text)}"
            )
    return cast(list[str], found)


def one_each(
    texts: object, num_images: int, name: str = "text_input", of: str = "images"
) -> list[str]:
    """Return texts as a list of one for each image; a single str goes with every image.

    Raises:
        ConfigError: no texts, or more or fewer than images.
    """
    if isinstance(texts, str):
        return [str(texts)] * num_images
    found = as_texts(texts, name)
    if len(found) != num_images:
        raise ConfigError(
            f"{name}: {len(found)} texts for {num_images} {of}; it takes one for each"
        )
    return found


def texts_of(samples: Samples, num_images: int) -> list[str]:
    """Return the ``text_input`` of samples: one for each image, or one str for all of them.

    Raises:
        ConfigError: no texts, or more or fewer than images.
    """
    return one_each(needed(samples, "text_input"), num_images)


def tokenized(texts: object, model: ReadsTexts, name: str = "text") -> TextBatch:
    """Return texts as ids and mask (B, T); those that are tokenised already as they are.

    Raises:
        ConfigError: neither texts nor a ``TextBatch``, or ids that the tokenizer does not have.
    """
    if not isinstance(texts, TextBatch):
        return model.tokenize(as_texts(texts, name))
    ids = as_ids(texts.ids, len(model.tokenizer), f"{name}.ids")
    as_mask(texts.mask, len(ids), ids.shape[1], f"{name}.mask")
    return texts


def matched(texts: object, num_images: int, model: ReadsTexts, name: str = "match") -> TextBatch:
    """Return the texts that ``match`` is given as ids and mask (B, T), one for each of B images.

    Raises:
        ConfigError: more or fewer texts than images.
    """
    batch = tokenized([texts] * num_images if isinstance(texts, str) else texts, model)
    if len(batch.ids) != num_images:
        raise ConfigError(
            f"{name}: {len(batch.ids)} texts for {num_images} images; it takes one for each, "
            "`rank` takes several"
        )
    return batch


def candidates(
    texts: object, num_images: int, model: ReadsTexts, name: str = "rank"
) -> tuple[TextBatch, bool]:
    """Return the candidates that ``rank`` is given as rows, image-major.

    Args:
        texts: K texts for all images, K texts for each of B images, or rows of ``tokenize``.
        num_images: B.
        model: that tokenises.
        name: of the method, for messages.

    Returns:
        B * K rows; or, where the K texts are the same for all images, K rows and True.

    Raises:
        ConfigError: no texts, or not the same number for every image.
    """
    if isinstance(texts, TextBatch):
        batch = tokenized(texts, model, "texts")
        if not num_images or len(batch.ids) % num_images:
            raise ConfigError(_uneven(name, len(batch.ids), num_images))
        return batch, False
    given = [texts] if isinstance(texts, str) else _listed(texts)
    if given and all(isinstance(text, str) for text in given):
        return model.tokenize(cast(list[str], given)), True
    rows = [_listed(row) for row in given or ()]
    if given is None or None in rows:
        raise ConfigError(
            f"texts: {kind_of(texts)}; a list of texts for all images is expected, or of each "
            'image: ["a dog", "a cat"] or [["a dog", "a cat"], ["a bird", "a fish"]]'
        )
    lists = [as_texts(row, f"texts[{place}]") for place, row in enumerate(rows)]
    if len(lists) != num_images or len({len(row) for row in lists}) > 1:
        raise ConfigError(_uneven(name, sum(map(len, lists)), num_images))
    return model.tokenize([text for row in lists for text in row]), False


def _uneven(name: str, num_texts: int, num_images: int) -> str:
    return f"{name}: {num_texts} texts for {num_images} images; it takes the same number for each"


def _listed(values: object) -> list[object] | None:
    """A sequence, an array, a table's column or an iterator as a list; None of anything else."""
    if isinstance(values, str | bytes | Tensor):
        return None
    if isinstance(values, Sequence | Iterator):
        return list(values)
    if callable(tolist := getattr(values, "tolist", None)) and getattr(values, "ndim", 1) == 1:
        return tolist()
    return None


def _as_text(value: object) -> str:
    return repr(str(value)) if isinstance(value, int | float) else "'a dog'"
