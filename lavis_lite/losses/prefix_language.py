"""Language modelling of the texts that a language model writes behind a prefix."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.losses.language import IGNORED
from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.modules.interfaces import LearnsTexts


@registry.register("loss", "prefix_lm")
class PrefixLanguageModelling(nn.Module):
    """Cross-entropy of each token of the samples' texts given their image and what precedes it.

    Prompts and padding are not counted.

    Args:
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.2.
    """

    requires = (LearnsTexts,)

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, shared: Shared[LearnsTexts]) -> Tensor:
        """() mean over the counted tokens of all processes."""
        logits, targets = shared.model.text_logits(shared.image_tokens, shared.samples)
        shared.hand_out(decoder_logits=logits, decoder_labels=targets)
        total = F.cross_entropy(
            logits.flatten(0, 1).float(),  # (B * T, V)
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return global_mean(total, (targets != IGNORED).sum())
