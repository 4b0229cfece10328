"""blip_classification: the class of an image with its text."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.models.classification import Classification
from lavis_lite.projects.blip.formats import Formats


@registry.register("model", "blip_classification")
class BlipClassification(Formats, Classification):
    """An image-grounded text encoder and a classifier; visual entailment, for one.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component.
        num_classes: number of classes C.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.
    """
