"""Classification: the class of an image with its text."""

from __future__ import annotations

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import DataError
from lavis_lite.losses.cross_entropy import distilled_cross_entropy
from lavis_lite.losses.shared import Shared, global_mean, keeps_momentum
from lavis_lite.modules.interfaces import LearnsClasses
from lavis_lite.modules.samples import labels_of, misspelt


@registry.register("loss", "classification")
class Classification(nn.Module):
    """Cross-entropy of the class; with a momentum copy, mixed with that against its predictions.

    Args:
        alpha: weight of the momentum copy's predictions in the targets, in [0, 1]; without effect
            in a model that keeps none (``use_distill: false``).
        ramp: fraction of the run over which ``alpha`` grows from 0.
        label_smoothing: weight of the uniform distribution in the labels, in [0, 1).
        model: may have a momentum copy; nothing else of it is asked here.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.4.
    """

    requires = (LearnsClasses,)

    def __init__(
        self,
        alpha: float = 0.4,
        ramp: float = 0.1,
        label_smoothing: float = 0.0,
        *,
        model: object = None,
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
                "classification: the samples have no `label`, the number of their class."
                + misspelt(shared.samples, "label")
            )
        logits = shared.class_logits  # (B, C)
        labels = labels_of(labels, len(logits), logits.shape[1], logits.device)  # (B,)
        shared.hand_out(logits=logits)
        alpha, soft_targets = 0.0, None
        if self.alpha:
            alpha = shared.step_info.ramped(self.alpha, self.ramp)
            logits_m = shared.momentum.class_logits  # (B, C)
            shared.hand_out(logits_m=logits_m)
            soft_targets = logits_m.softmax(dim=1)  # (B, C)
        loss = distilled_cross_entropy(
            logits, labels, soft_targets, alpha, self.label_smoothing, "sum"
        )
        return global_mean(loss, len(labels))
