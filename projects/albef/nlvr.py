"""albef_nlvr: whether a statement holds of two images."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.classification import PairClassifying, class_head
from lavis_lite.models.encoders import GroundedModel, Spec
from lavis_lite.models.momentum import add_distillation, momentum_view
from lavis_lite.modules.med.attention import Attention, KeyValue
from lavis_lite.modules.med.model import Encoder, Layer, Med
from lavis_lite.projects.albef.formats import Formats


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


class InTurn(PairClassifying):
    """One layer looks at the first image, the next at the second."""

    def project_pair(self, first: Tensor, second: Tensor) -> list[KeyValue]:
        """The first image for every other layer, the second for those between."""
        return [
            cast(Attention, layer.crossattention).self.project(second if number % 2 else first)
            for number, layer in enumerate(self.text_tower.fusion_layers)
        ]


@registry.register("model", "albef_nlvr")
class AlbefNLVR(Formats, InTurn, GroundedModel):
    """An image-grounded text encoder whose layers look at two images in turn, and a classifier.

    Samples have ``image0`` and ``image1`` (B, 3, H, W), ``text_input`` and ``label`` (B,), 1 where
    the statement holds. Nothing is drawn at random outside of training: the same pair has the same
    prediction every time.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; each of its layers that look is doubled.
        num_classes: number of classes C.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4 and fig. 3.
    """

    momentum_pairs = ("visual_encoder", "text_encoder", "cls_head")
    cls_head: nn.Sequential

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        num_classes: int = 2,
        image_size: ImageSize = 384,
        tokenizer: str | None = None,
        max_length: int = 40,
        use_distill: bool = True,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        look_in_turn(self.text_encoder)
        self.cls_head = class_head(self.text_encoder.width, num_classes)
        add_distillation(self, use_distill, momentum)
        self.add_losses(losses)

    @property
    def momentum(self) -> InTurn:
        """The momentum copy, as something that classifies."""
        return momentum_view(InTurn, self)
