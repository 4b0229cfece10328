"""An image-grounded text decoder: methods of the models that have one.

A model with these parts says so in its class: ``decoder_of = captioning.decoder_of``.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from lavis_lite.config.calls import checked_options
from lavis_lite.models.base import Texts
from lavis_lite.models.images import as_tokens
from lavis_lite.models.tensors import as_context, rows_in
from lavis_lite.models.texts import matched
from lavis_lite.modules.med.attention import KeyValue
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece


class Parts(Protocol):
    """The parts that the functions below read."""

    visual_encoder: nn.Module
    text_decoder: MedDecoder
    tokenizer: WordPiece

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        ...


def max_positions(model: Parts) -> int:
    """The most tokens that a text can have."""
    return model.text_decoder.bert.max_length


@checked_options
def decoder_of(
    model: Parts, image_tokens: Tensor, num_texts: int, max_length: int
) -> GroundedDecoder:
    """The decoder bound to images (B, N, D).

    Args:
        image_tokens: of the images.
        num_texts: about each image, and
        max_length: tokens of each, as far as is known: images are projected as is cheapest then.
    """
    tower = model.text_decoder.bert
    tokens = as_tokens(image_tokens, model)
    seen = tower.image_context(tokens, num_texts * max_length, max_length)
    return GroundedDecoder(model.text_decoder, seen)


def decode_logits(model: Parts, image_context: list[KeyValue], text: Texts) -> Tensor:
    """Projected images and B texts (B, T) -> (B, T, V) logits of each next token.

    ``[DEC]`` takes the place of ``[CLS]``.
    """
    as_context(image_context, len(model.text_decoder.bert.fusion_layers))
    written = matched(text, rows_in(image_context), model, "decode_logits")
    written = written.replace_first(model.tokenizer.bos_id)
    return model.text_decoder(written.ids, written.mask, image_kv=image_context)
