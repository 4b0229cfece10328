"""blip_vqa: answers questions about an image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import Spec
from lavis_lite.models.vqa import Answering
from lavis_lite.projects.blip.towers import Blip


@registry.register("model", "blip_vqa")
class BlipVQA(Answering, Blip):
    """A text encoder that reads questions with their images, and a decoder that answers.

    The decoder looks at the states of the question, not at the image. Samples to train on have
    ``image`` (B, 3, H, W), ``text_input`` (B questions) and answers: of each question a list in
    ``answers`` and their ``weights``; or, as LAVIS collates them, all in one list ``answer``, with
    ``weight`` and ``n_answers`` per question.

    Args:
        vision: the vision encoder's component.
        text: the component of both text towers.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a question is cut to.
        losses: name -> component.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 5.3.
    """

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 480,
        tokenizer: str | None = None,
        max_length: int = 35,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        self.text_decoder = self.build_decoder(text, source_width=self.text_encoder.width)
        self.add_losses(losses)
