"""blip_nlvr: whether a statement holds of two images."""

from __future__ import annotations

from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_text, build_vision, class_head, describe_arguments
from lavis_lite.models.classification import Classification
from lavis_lite.models.images import as_tokens
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.blip.formats import BlipFormats
from lavis_lite.projects.blip.pairs import PairKeyValue, project_pairs, read_pairs


class BlipNLVR(Classification):
    """An image-grounded text encoder that looks at two images, and a classifier.

    Samples have ``image0`` and ``image1`` (B, 3, H, W), ``text_input`` and ``label`` (B,), 1 where
    the statement holds. Nothing is drawn at random outside of training: the same pair has the same
    prediction every time. The cross-attention of the text encoder is that of ``read_pairs``.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.4.
    """

    formats = BlipFormats()
    image_names = ("image0", "image1")

    def image_context(self, image_tokens: Tensor) -> list[PairKeyValue]:
        """(2B, N, D) -> the first image for one half of each cross-attention, the second for the
        other."""
        return project_pairs(self.text_tower, *as_tokens(image_tokens, self).chunk(2))


@registry.register("model", "blip_nlvr")
@describe_arguments
def blip_nlvr(
    vision: Spec,
    text: Spec,
    num_classes: int = 2,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    max_length: int = 64,
    merge_from: int = 6,
    use_distill: bool = False,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> BlipNLVR:
    """An image-grounded text encoder that looks at two images, and a classifier.

    Args:
        text: the text encoder's component; its cross-attention is doubled.
        merge_from: the first layer, counted from 0, whose cross-attention merges what it found in
            both images by weights of its own; those below average it.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets; not
            so published.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.4.
    """
    words = load_tokenizer(tokenizer)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    read_pairs(reader, merge_from, text.get("init_scale"))
    head = class_head(reader.width, num_classes)
    model = BlipNLVR(
        images, reader, words, cls_head=head, image_size=image_size, max_length=max_length
    )
    if use_distill:
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
