"""blip_nlvr: whether a statement holds of two images."""

from __future__ import annotations

from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.classification import PairClassifying, class_head
from lavis_lite.models.encoders import Spec
from lavis_lite.models.momentum import add_distillation, momentum_view
from lavis_lite.projects.blip.pairs import PairKeyValue, project_pairs, read_pairs
from lavis_lite.projects.blip.towers import Blip


class SideBySide(PairClassifying):
    """Every layer looks at both images."""

    def project_pair(self, first: Tensor, second: Tensor) -> list[PairKeyValue]:
        """The first image for one half of each cross-attention, the second for the other."""
        return project_pairs(self.text_tower, first, second)


@registry.register("model", "blip_nlvr")
class BlipNLVR(SideBySide, Blip):
    """An image-grounded text encoder that looks at two images, and a classifier.

    Samples have ``image0`` and ``image1`` (B, 3, H, W), ``text_input`` and ``label`` (B,), 1 where
    the statement holds. Nothing is drawn at random outside of training: the same pair has the same
    prediction every time.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; its cross-attention is doubled.
        num_classes: number of classes C.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
        merge_from: the first layer, counted from 0, whose cross-attention merges what it found in
            both images by weights of its own; those below average it.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets; not
            so published.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.4.
    """

    momentum_pairs = ("visual_encoder", "text_encoder", "cls_head")

    def __init__(
        self,
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
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        read_pairs(self.text_encoder, merge_from, text.get("init_scale"))
        self.cls_head = class_head(self.text_tower.width, num_classes)
        add_distillation(self, use_distill, momentum)
        self.add_losses(losses)

    @property
    def momentum(self) -> SideBySide:
        """The momentum copy, as something that classifies."""
        return momentum_view(SideBySide, self)
