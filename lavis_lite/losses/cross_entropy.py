"""Cross-entropies that several losses share: against soft targets, and distilled from a teacher."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lavis_lite.errors import ConfigError, suggest

Reduction = Literal["mean", "sum"]
REDUCTIONS = ("mean", "sum")


def reduced(total: Tensor, count: int | Tensor, reduction: Reduction) -> Tensor:
    """Return a sum over ``count`` rows as it is, or as their mean (0 of no rows).

    Raises:
        ConfigError: another reduction.
    """
    if reduction not in REDUCTIONS:
        raise ConfigError(
            f"reduction: {reduction!r}.{suggest(str(reduction), REDUCTIONS)} "
            f"Known: {', '.join(REDUCTIONS)}; a loss is one number"
        )
    return total if reduction == "sum" else total / max(int(count), 1)


def soft_cross_entropy(logits: Tensor, targets: Tensor, reduction: Reduction = "sum") -> Tensor:
    """Cross-entropy of predictions with target distributions, ``-sum_c q_c log softmax(z)_c``.

    Args:
        logits: (B, C).
        targets: (B, C), each row a distribution q.
        reduction: over the rows.

    Returns:
        () loss.
    """
    total = -(F.log_softmax(logits, dim=1) * targets).sum()
    return reduced(total, len(logits), reduction)


def distilled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    soft_targets: Tensor | None = None,
    alpha: float = 0.0,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with labels, mixed with that against a teacher's distribution.

    ``(1 - alpha) H(y, p) + alpha H(q, p)``: equation 7 of ALBEF up to the entropy of q, which does
    not depend on the model.

    Args:
        logits: (B, C).
        labels: (B,) classes y.
        soft_targets: (B, C) distributions q of the momentum copy; None is none.
        alpha: weight of the soft targets, in [0, 1].
        label_smoothing: weight of the uniform distribution in the labels, in [0, 1).
        reduction: over the rows.

    Returns:
        () loss.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.4.
    """
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="sum")
    if soft_targets is not None:
        loss = (1 - alpha) * loss + alpha * soft_cross_entropy(logits, soft_targets)
    return reduced(loss, len(logits), reduction)
