"""blip_retrieval: finds images by text and texts by image; the filter of CapFilt."""

from __future__ import annotations

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models import momentum as momentum_copies
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_text, build_vision, describe_arguments, width_of
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip.formats import BlipFormats


class BlipRetrieval(Retrieval):
    """Image-text contrast and matching over BLIP's towers.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """

    formats = BlipFormats()


@registry.register("model", "blip_retrieval")
@describe_arguments
def blip_retrieval(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    embed_width: int = 256,
    max_length: int = 35,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> BlipRetrieval:
    """Image-text contrast and matching, with a momentum copy where a loss asks for one.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    model = BlipRetrieval(
        images,
        reader,
        words,
        vision_proj=nn.Linear(width_of(images), embed_width),
        text_proj=nn.Linear(reader.width, embed_width),
        itm_head=nn.Linear(reader.width, 2),
        image_size=image_size,
        max_length=max_length,
    )
    if momentum_copies.asked_for(losses):
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
