"""Readings and tokenised texts as the first stage takes them, or an error that teaches."""

from __future__ import annotations

from lavis_lite.errors import ConfigError
from lavis_lite.modules.samples import kind_of
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip2.qformer import ImageReading


def as_reading(context: object) -> ImageReading:
    """Return the queries' reading of images as it is.

    Raises:
        ConfigError: anything else, such as image tokens that no query has read.
    """
    if isinstance(context, ImageReading):
        return context
    raise ConfigError(
        f"image_context: {kind_of(context)}; the reading of the queries is expected, as "
        "`image_context(image_tokens)` gives it"
    )


def as_text_batch(texts: object) -> object:
    """Return what a tokenizer of transformers gives as a ``TextBatch``; anything else as it is."""
    ids, mask = (getattr(texts, name, None) for name in ("input_ids", "attention_mask"))
    return texts if ids is None or mask is None else TextBatch(ids, mask)
