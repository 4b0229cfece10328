"""The joint space and matching trained together, with a momentum copy where a loss asks for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import GroundedModel, JointSpace, Spec, add_projections
from lavis_lite.models.momentum import add_momentum, momentum_view
from lavis_lite.models.multimodal import Matching
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.output import ModelOutput, Samples


class Retrieval(Matching, JointSpace, GroundedModel):
    """Image-text contrast and matching, with a momentum copy where a loss asks for one.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        embed_width: width E of the joint space.
        max_length: tokens that a text is cut to.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.
    """

    momentum_pairs = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        image_size: ImageSize = 384,
        tokenizer: str | None = None,
        embed_width: int = 256,
        max_length: int = 35,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_reader(text)
        add_projections(self, embed_width)
        self.momentum_decay = momentum
        self.itm_head = nn.Linear(self.text_tower.width, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        self._add_parts(text)
        add_momentum(self, losses)
        self.add_losses(losses)

    def build_reader(self, text: Spec) -> Med | MedDecoder:
        """The text encoder."""
        return self.build_text(text)

    def _add_parts(self, text: Spec) -> None:
        """Parts that a subclass has besides; before the momentum copy is taken."""

    def forward(self, samples: Samples, step_info: StepInfo | None = None) -> ModelOutput:
        """Compute the losses of a batch; the temperature is held in [0.001, 0.5], as published."""
        with torch.no_grad():
            self.temp.clamp_(0.001, 0.5)
        return super().forward(samples, step_info)

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32."""
        return self.temp.float()

    @property
    def momentum(self) -> JointSpace:
        """The momentum copy, as something that encodes."""
        return momentum_view(JointSpace, self)
