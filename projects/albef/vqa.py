"""albef_vqa: answers questions about an image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_decoder, build_text, build_vision, describe_arguments
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.vqa import Answering
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.albef.formats import ADDED_TOKENS, AlbefFormats


class AlbefVQA(Answering):
    """A text encoder that reads questions with their images, and a decoder that answers.

    The decoder has as many layers as look at the image in the encoder. From pre-trained weights it
    starts as those layers.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4.
    """

    formats = AlbefFormats()
    momentum_pairs = ("visual_encoder", "text_encoder", "text_decoder")
    momentum: MomentumCopy
    answer_smoothing = 0.0


@registry.register("model", "albef_vqa")
@describe_arguments
def albef_vqa(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    max_length: int = 25,
    use_distill: bool = True,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> AlbefVQA:
    """A text encoder that reads questions with their images, and a decoder that answers.

    Args:
        text: the text encoder's component; the decoder's but for its depth.
        max_length: tokens that a question is cut to.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    depth = len(reader.fusion_layers)
    own = {**text, "depth": depth, "fusion_layer": 0, "pretrained": None}
    writer = build_decoder(own, words, source=reader)
    model = AlbefVQA(images, reader, words, writer, image_size=image_size, max_length=max_length)
    if use_distill:
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
