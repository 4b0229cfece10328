"""blip_pretrain: contrast, matching and language modelling over one mixture of encoder-decoder."""

from __future__ import annotations

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models import captioning
from lavis_lite.models import momentum as momentum_copies
from lavis_lite.models.base import Losses, LossSpecs, Spec
from lavis_lite.models.build import (
    build_decoder,
    build_text,
    build_vision,
    describe_arguments,
    width_of,
)
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.modules.med.model import Med, MedDecoder, tie
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip import captioning as grounded
from lavis_lite.projects.blip.formats import BlipFormats


class BlipPretrain(Retrieval):
    """A retrieval model with a decoder that shares everything but self-attention.

    Args:
        text_decoder: tied to the text encoder (``modules.med.model.tie``), so that what texts look
            at of an image is one and the same for both.
        losses: name -> loss.

    The others are those of ``Retrieval``.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """

    formats = BlipFormats()
    prompt = ""
    prompt_ids = captioning.prompt_ids
    generate = captioning.generate
    max_positions = property(grounded.max_positions)
    decoder_of = grounded.decoder_of
    decode_logits = grounded.decode_logits

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med,
        tokenizer: WordPiece,
        text_decoder: MedDecoder,
        *,
        vision_proj: nn.Linear,
        text_proj: nn.Linear,
        itm_head: nn.Linear,
        image_size: ImageSize,
        max_length: int,
        losses: Losses | None = None,
    ) -> None:
        super().__init__(
            visual_encoder,
            text_encoder,
            tokenizer,
            vision_proj=vision_proj,
            text_proj=text_proj,
            itm_head=itm_head,
            image_size=image_size,
            max_length=max_length,
        )
        self.text_decoder = text_decoder
        self.add_losses(losses)


@registry.register("model", "blip_pretrain")
@describe_arguments
def blip_pretrain(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 30,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> BlipPretrain:
    """A retrieval model with a decoder that shares everything but self-attention.

    Args:
        text: the component of both text towers.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    vision_proj = nn.Linear(width_of(images), embed_width)
    text_proj = nn.Linear(reader.width, embed_width)
    itm_head = nn.Linear(reader.width, 2)
    writer = build_decoder(text, words, source=images)
    tie(reader, writer)
    model = BlipPretrain(
        images,
        reader,
        words,
        writer,
        vision_proj=vision_proj,
        text_proj=text_proj,
        itm_head=itm_head,
        image_size=image_size,
        max_length=max_length,
    )
    if momentum_copies.asked_for(losses):
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
