"""Contrastive losses between images and texts: ITC with momentum, and InfoNCE."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.queue import FeatureQueue
from lavis_lite.losses.shared import Shared, global_mean, similarities
from lavis_lite.modules.interfaces import Contrasts, ContrastsWithMomentum

Scope = Literal["global", "local"]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B, C) logits against (B, C) target distributions: the sum over rows, ()."""
    return -(F.log_softmax(logits, dim=1) * targets).sum()


def positives(ids: Tensor, column_ids: Tensor) -> Tensor:
    """(B,) and (C,) image ids to (B, C) rows that spread one over the columns of the same image."""
    same = (ids[:, None] == column_ids[None, :]).float()
    return same / same.sum(dim=1, keepdim=True)


@registry.register("loss", "itc")
class ImageTextContrast(nn.Module):
    """Image-text contrast against momentum features, with soft targets.

    Rows are this batch's features; columns are the momentum features of this batch and a queue of
    earlier ones. Targets mix the true pairing with what the momentum copy finds similar.

    Args:
        queue_size: earlier pairs to contrast against, Q.
        alpha: share of the momentum copy's opinion in the targets.
        ramp: fraction of the run over which ``alpha`` grows from 0.
        negatives: ``global`` gathers the batch of all processes, ``local`` does not.
        same_image_positive: pairs of one image (``image_id``) are each other's positives, as in
            BLIP's retrieval fine-tuning; pre-training ignores ids.
        model: gives the width of the joint space.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, eq. 1 and 6; BLIP section 3.2.
    """

    requires = (ContrastsWithMomentum,)

    def __init__(
        self,
        queue_size: int = 57600,
        alpha: float = 0.4,
        ramp: float = 0.1,
        negatives: Scope = "global",
        same_image_positive: bool = False,
        *,
        model: ContrastsWithMomentum,
    ) -> None:
        super().__init__()
        self.alpha, self.ramp = alpha, ramp
        self.negatives = negatives
        self.queue = FeatureQueue(model.embed_width, queue_size, ids=same_image_positive)

    def forward(self, shared: Shared) -> Tensor:
        """() mean over both directions and all rows of all processes."""
        image_m, text_m, ids, first = self._columns(shared)
        queue = self.queue
        image_columns = torch.cat([image_m, queue.image_queue.T])  # (G + Q, E)
        text_columns = torch.cat([text_m, queue.text_queue.T])
        labels = self._labels(shared, ids, first, len(image_columns))
        momentum = shared.momentum
        loss = self._direction(
            shared, "i2t", shared.image_features, momentum.image_features, text_columns, labels
        )
        loss += self._direction(
            shared, "t2i", shared.text_features, momentum.text_features, image_columns, labels
        )
        if torch.is_grad_enabled():
            self._remember(image_m, text_m, ids)
        return global_mean(loss / 2, len(shared.image_features))

    def _columns(self, shared: Shared) -> tuple[Tensor, Tensor, Tensor, int]:
        """Momentum features and image ids of the batch, and the column of this process's row 0."""
        momentum = shared.momentum
        batch = momentum.image_features, momentum.text_features, shared.image_ids
        if self.negatives == "local":
            return *batch, 0
        counts = distributed.all_gather_object(len(batch[2]))
        image, text, ids = (distributed.all_gather(t) for t in batch)
        return image, text, ids, sum(counts[: distributed.rank()])

    def _labels(self, shared: Shared, ids: Tensor, first: int, num_columns: int) -> Tensor:
        if self.queue.has_ids:
            return positives(shared.image_ids, torch.cat([ids, self.queue.idx_queue[0]]))
        own = torch.arange(len(shared.image_features), device=ids.device) + first
        return F.one_hot(own, num_columns).float()

    def _direction(
        self,
        shared: Shared,
        name: str,
        rows: Tensor,
        rows_m: Tensor,
        columns: Tensor,
        labels: Tensor,
    ) -> Tensor:
        with torch.no_grad():
            alpha = self.alpha * min(1.0, shared.progress / self.ramp if self.ramp else 1.0)
            opinion = similarities(rows_m, columns, shared.temperature)
            targets = alpha * F.softmax(opinion, dim=1) + (1 - alpha) * labels
        sims = similarities(rows, columns, shared.temperature)
        shared.hand_out(
            **{f"sim_{name}": sims, f"sim_{name}_m": opinion, f"sim_{name}_targets": targets}
        )
        return soft_cross_entropy(sims, targets)

    def _remember(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        if self.negatives == "local":  # the queue is one and the same on every process
            image, text, ids = (distributed.all_gather(t) for t in (image, text, ids))
        self.queue.push(image, text, ids)


@registry.register("loss", "info_nce")
class InfoNce(nn.Module):
    """Symmetric InfoNCE between matching rows, over all processes.

    Args:
        negatives: ``global`` contrasts with the batch of all processes, ``local`` with this one's.
        model: unused; the embeddings come with the step.

    Reference: CLIP, https://arxiv.org/abs/2103.00020, fig. 3.
    """

    requires = (Contrasts,)

    def __init__(self, negatives: Scope = "global", *, model: Any = None) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, shared: Shared) -> Tensor:
        """() mean over both directions and all rows of all processes."""
        image, text = shared.image_features, shared.text_features
        images, texts, first = image, text, 0
        if self.negatives == "global":
            counts = distributed.all_gather_object(len(image))
            first = sum(counts[: distributed.rank()])
            images = distributed.gather_with_grad(image, even=False)
            texts = distributed.gather_with_grad(text, even=False)
        labels = torch.arange(len(image), device=image.device) + first
        to_texts = similarities(image, texts, shared.temperature)
        to_images = similarities(text, images, shared.temperature)
        loss = F.cross_entropy(to_texts, labels, reduction="sum")
        loss += F.cross_entropy(to_images, labels, reduction="sum")
        return global_mean(loss / 2, len(image))
