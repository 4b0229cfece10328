"""Classification: which class is this image with its text?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import DataError
from lavis_lite.losses.contrastive import soft_cross_entropy
from lavis_lite.losses.shared import Shared, global_mean, keeps_momentum
from lavis_lite.modules.interfaces import LearnsClasses


@registry.register("loss", "classification")
class Classification(nn.Module):
    """Cross-entropy of the class; with a momentum copy, mixed with what the copy finds.

    Args:
        alpha: share of the momentum copy's opinion in the targets, in [0, 1]; without effect in a
            model that keeps none (``use_distill: false``).
        ramp: fraction of the run over which ``alpha`` grows from 0.
        label_smoothing: weight of the uniform distribution in the labels, in [0, 1).
        model: says whether it keeps a momentum copy; the classifier is the model's.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.4.
    """

    requires = (LearnsClasses,)

    def __init__(
        self,
        alpha: float = 0.4,
        ramp: float = 0.1,
        label_smoothing: float = 0.0,
        *,
        model: Any = None,
    ) -> None:
        super().__init__()
        self.alpha = alpha if keeps_momentum(model) else 0.0
        self.ramp, self.label_smoothing = ramp, label_smoothing

    def forward(self, shared: Shared[LearnsClasses]) -> Tensor:
        """() mean over the rows of all processes.

        Raises:
            DataError: samples without ``label``.
        """
        labels = shared.samples.get("label")
        if labels is None:
            raise DataError(
                "classification: the samples have no `label`, the number of their class"
            )
        logits = shared.class_logits
        labels = torch.as_tensor(labels, device=logits.device).long()
        shared.hand_out(logits=logits)
        loss = F.cross_entropy(
            logits, labels, label_smoothing=self.label_smoothing, reduction="sum"
        )
        if self.alpha:
            alpha = self.alpha * min(1.0, shared.progress / self.ramp if self.ramp else 1.0)
            opinion = shared.momentum.class_logits
            shared.hand_out(logits_m=opinion)
            soft = soft_cross_entropy(logits, opinion.softmax(dim=1))
            loss = (1 - alpha) * loss + alpha * soft
        return global_mean(loss, len(labels))
