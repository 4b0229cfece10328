"""blip_caption: describes an image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import Spec
from lavis_lite.projects.blip.towers import Blip, Captioning


@registry.register("model", "blip_caption")
class BlipCaption(Captioning, Blip):
    """A vision encoder and a text decoder that looks at it.

    Args:
        vision: the vision encoder's component.
        text: the decoder's component.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        prompt: what every caption starts with. Texts to train on start with it too (the text
            processor puts it there); it is given to the model, not learnt, and removed from output.
        max_length: tokens that a text is cut to in training.
        losses: name -> component.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 384,
        tokenizer: str | None = None,
        prompt: str = "a picture of ",
        max_length: int = 40,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_decoder = self.build_decoder(text)
        self.prompt = prompt
        self.prompt_length = len(self.prompt_ids())
        self.add_losses(losses)
