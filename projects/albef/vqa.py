"""albef_vqa: answers questions about an image."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import GroundedModel, Spec
from lavis_lite.models.momentum import add_distillation, momentum_view
from lavis_lite.models.vqa import Answering
from lavis_lite.projects.albef.formats import Formats


@registry.register("model", "albef_vqa")
class AlbefVQA(Formats, Answering, GroundedModel):
    """A text encoder that reads questions with their images, and a decoder that answers.

    The decoder has as many layers as look at the image in the encoder, and looks at the states of
    the question. From pre-trained weights it starts as those layers. Samples to train on have
    ``image`` (B, 3, H, W), ``text_input`` (B questions) and answers: of each question a list in
    ``answers`` and their ``weights``; or, as LAVIS collates them, all in one list ``answer``, with
    ``weight`` and ``n_answers`` per question.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; the decoder's but for its depth.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a question is cut to.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 4.
    """

    momentum_pairs = ("visual_encoder", "text_encoder", "text_decoder")
    answer_smoothing = 0.0

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 384,
        tokenizer: str | None = None,
        max_length: int = 25,
        use_distill: bool = True,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        depth = len(self.text_tower.fusion_layers)
        own = {**text, "depth": depth, "fusion_layer": 0, "pretrained": None}
        self.text_decoder = self.build_decoder(own, source_width=self.text_tower.width)
        add_distillation(self, use_distill, momentum)
        self.add_losses(losses)

    @property
    def momentum(self) -> Answering:
        """The momentum copy, as something that answers."""
        return momentum_view(Answering, self)
