"""albef_pretrain: contrast, matching and hidden words, with momentum distillation."""

from __future__ import annotations

from lavis_lite import registry
from lavis_lite.models.encoders import JointSpace, Spec
from lavis_lite.models.momentum import momentum_view
from lavis_lite.models.multimodal import Filling
from lavis_lite.models.retrieval import Retrieval
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.projects.albef.formats import Formats


class MomentumTowers(Filling, JointSpace):
    """What the momentum copy of a pre-training model can: encode, and find hidden words."""


@registry.register("model", "albef_pretrain")
class AlbefPretrain(Formats, Filling, Retrieval):
    """A retrieval model whose text encoder finds hidden words, by a head over the vocabulary.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component; from its ``fusion_layer`` on it looks at the image.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        embed_width: width E of the joint space.
        max_length: tokens that a text is cut to.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.
    """

    def build_reader(self, text: Spec) -> MedDecoder:
        """The text encoder with its head."""
        return self.build_decoder(text)

    @property
    def momentum(self) -> MomentumTowers:
        """The momentum copy, as something that encodes and finds hidden words."""
        return momentum_view(MomentumTowers, self)
