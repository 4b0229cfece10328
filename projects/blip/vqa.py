"""blip_vqa: answers questions about an image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_decoder, build_text, build_vision, describe_arguments
from lavis_lite.models.vqa import Answering
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip.formats import BlipFormats


class BlipVQA(Answering):
    """A text encoder that reads questions with their images, and a decoder that answers.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.3.
    """

    formats = BlipFormats()


@registry.register("model", "blip_vqa")
@describe_arguments
def blip_vqa(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 480,
    tokenizer: str | None = None,
    max_length: int = 35,
    losses: LossSpecs | None = None,
) -> BlipVQA:
    """A text encoder that reads questions with their images, and a decoder that answers.

    Args:
        text: the component of both text towers.
        max_length: tokens that a question is cut to.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.3.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    writer = build_decoder(text, words, source=reader)
    model = BlipVQA(images, reader, words, writer, image_size=image_size, max_length=max_length)
    model.add_losses(losses)
    return model
