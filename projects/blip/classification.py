"""blip_classification: the class of an image with its text."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.model import LossSpecs
from lavis_lite.projects.blip.reading import Classifying, class_head
from lavis_lite.projects.blip.towers import Blip, Spec, copy_towers, momentum_view


@registry.register("model", "blip_classification")
class BlipClassification(Classifying, Blip):
    """An image-grounded text encoder and a classifier; visual entailment, for one.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component.
        num_classes: number of classes C.
        image_size: side of the square input.
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.
    """

    momentum_pairs = ("visual_encoder", "text_encoder", "cls_head")

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        num_classes: int,
        image_size: int = 384,
        tokenizer: str | None = None,
        max_length: int = 40,
        use_distill: bool = True,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        self.cls_head = class_head(self.text_encoder.width, num_classes)
        self.use_distill, self.momentum_decay = use_distill, momentum
        if use_distill:
            copy_towers(self)
        self.add_losses(losses)

    @property
    def momentum(self) -> Classifying:
        """The momentum copy, as something that classifies."""
        return momentum_view(Classifying, self)
