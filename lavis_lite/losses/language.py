"""Language modelling: the text, word by word, given the image."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.modules.interfaces import Decodes

IGNORED = -100


@registry.register("loss", "lm")
class LanguageModelling(nn.Module):
    """Cross-entropy of each next token given the image and the tokens before it.

    Tokens of the model's prompt and padding are not counted.

    Args:
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).
        model: unused; the decoder is the model's.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.2.
    """

    requires = (Decodes,)

    def __init__(self, label_smoothing: float = 0.1, *, model: Any = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, shared: Shared[Decodes]) -> Tensor:
        """() mean over the counted tokens of all processes."""
        model = shared.model
        text = shared.text
        logits = model.decode_logits(shared.image_context, text)
        targets = text.ids.masked_fill(~text.mask.bool(), IGNORED)[:, 1:].clone()
        targets[:, : max(model.prompt_length - 1, 0)] = IGNORED
        shared.hand_out(decoder_logits=logits, decoder_labels=targets)
        total = F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return global_mean(total, (targets != IGNORED).sum())
