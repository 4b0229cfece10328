"""albef_classification: the class of an image with its text."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_text, build_vision, class_head, describe_arguments
from lavis_lite.models.classification import Classification
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.albef.formats import ADDED_TOKENS, AlbefFormats


class AlbefClassification(Classification):
    """An image-grounded text encoder and a classifier; visual entailment, for one."""

    formats = AlbefFormats()


@registry.register("model", "albef_classification")
@describe_arguments
def albef_classification(
    vision: Spec,
    text: Spec,
    num_classes: int,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    max_length: int = 40,
    use_distill: bool = True,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> AlbefClassification:
    """An image-grounded text encoder and a classifier; visual entailment, for one.

    Args:
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    head = class_head(reader.width, num_classes)
    model = AlbefClassification(
        images, reader, words, cls_head=head, image_size=image_size, max_length=max_length
    )
    if use_distill:
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
