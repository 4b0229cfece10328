"""blip_pretrain: contrast, matching and language modelling over one mixture of encoder-decoder."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import Spec
from lavis_lite.modules.med.model import tie
from lavis_lite.projects.blip.retrieval import BlipRetrieval
from lavis_lite.projects.blip.towers import Captioning


@registry.register("model", "blip_pretrain")
class BlipPretrain(Captioning, BlipRetrieval):
    """A retrieval model with a decoder that shares everything but self-attention.

    Args:
        vision: the vision encoder's component.
        text: the component of both text towers.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        embed_width: width E of the joint space.
        max_length: tokens that a text is cut to.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.
    """

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 224,
        tokenizer: str | None = None,
        embed_width: int = 256,
        max_length: int = 30,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        self.prompt = ""
        super().__init__(
            vision, text, image_size, tokenizer, embed_width, max_length, momentum, losses
        )

    def _add_parts(self, text: Spec) -> None:
        self.text_decoder = self.build_decoder(text)
        tie(self.text_encoder, self.text_decoder)
