"""albef_nlvr: whether a statement holds of two images."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_text, build_vision, class_head, describe_arguments
from lavis_lite.models.classification import Classification
from lavis_lite.models.images import as_tokens
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.modules.med.attention import Attention, KeyValue
from lavis_lite.modules.med.model import Encoder, Layer, Med
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.albef.formats import ADDED_TOKENS, AlbefFormats


def look_in_turn(tower: Med) -> None:
    """Double the layers of a tower that look at an image: one for each of two images, in turn.

    The two of a pair start alike, and share the keys and values of their cross-attention for good.
    """
    layers: list[Layer] = list(tower.encoder)[: tower.fusion_layer]
    for first in tower.fusion_layers:
        second = copy.deepcopy(first)
        mine, theirs = (cast(Attention, x.crossattention).self for x in (second, first))
        mine.key, mine.value = theirs.key, theirs.value
        layers += [first, second]
    tower.encoder = Encoder(layers)


class AlbefNLVR(Classification):
    """An image-grounded text encoder whose layers look at two images in turn, and a classifier.

    Samples have ``image0`` and ``image1`` (B, 3, H, W), ``text_input`` and ``label`` (B,), 1 where
    the statement holds. Nothing is drawn at random outside of training: the same pair has the same
    prediction every time. The layers of the text encoder are those of ``look_in_turn``.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4 and fig. 3.
    """

    formats = AlbefFormats()
    image_names = ("image0", "image1")

    def image_context(self, image_tokens: Tensor) -> list[KeyValue]:
        """(2B, N, D) -> the first image for every other layer, the second for those between."""
        first, second = as_tokens(image_tokens, self).chunk(2)
        return [
            cast(Attention, layer.crossattention).self.project(second if number % 2 else first)
            for number, layer in enumerate(self.text_tower.fusion_layers)
        ]


@registry.register("model", "albef_nlvr")
@describe_arguments
def albef_nlvr(
    vision: Spec,
    text: Spec,
    num_classes: int = 2,
    image_size: ImageSize = 384,
    tokenizer: str | None = None,
    max_length: int = 40,
    use_distill: bool = True,
    momentum: float = 0.995,
    losses: LossSpecs | None = None,
) -> AlbefNLVR:
    """An image-grounded text encoder whose layers look at two images in turn, and a classifier.

    Args:
        text: the text encoder's component; each of its layers that look is doubled.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4 and fig. 3.
    """
    words = load_tokenizer(tokenizer, ADDED_TOKENS)
    images = build_vision(vision, image_size)
    reader = build_text(text, words, source=images)
    look_in_turn(reader)
    head = class_head(reader.width, num_classes)
    model = AlbefNLVR(
        images, reader, words, cls_head=head, image_size=image_size, max_length=max_length
    )
    if use_distill:
        model.momentum = MomentumCopy(model, momentum)
    model.add_losses(losses)
    return model
