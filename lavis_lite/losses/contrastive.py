"""Contrastive losses between images and texts: ITC with momentum, and InfoNCE."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.cross_entropy import Reduction, reduced, soft_cross_entropy
from lavis_lite.losses.queue import FeatureQueue
from lavis_lite.losses.shared import Shared, first_row, global_mean, similarities
from lavis_lite.modules.interfaces import Contrasts, ContrastsWithMomentum

Scope = Literal["global", "local"]


# ---- the mathematics


def row_contrast(
    rows: Tensor,
    columns: Tensor,
    temperature: Tensor | float,
    first: int = 0,
    reduction: Reduction = "mean",
    targets: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of each row with its own column among all columns: one direction of InfoNCE.

    ``-log(exp(r_i . c_i / t) / sum_j exp(r_i . c_j / t))``. With label smoothing s the target is
    ``(1 - s) onehot(i) + s / G``.

    Args:
        rows: (B, E) unit vectors r, or (B, Q, E), several for each row (``cosines``).
        columns: (G, E) unit vectors c, or (G, P, E); row i belongs to column ``first + i``.
        temperature: t, above 0.
        first: the column of row 0.
        reduction: over the rows.
        targets: (B, G) distributions in place of the one-hot targets, see ``positives``.
        label_smoothing: s, in [0, 1).

    Returns:
        () loss.
    """
    logits = similarities(rows, columns, temperature)  # (B, G)
    own = torch.arange(len(rows), device=rows.device) + first  # (B,)
    total = F.cross_entropy(
        logits,
        own if targets is None else targets,
        reduction="sum",
        label_smoothing=label_smoothing,
    )
    return reduced(total, len(rows), reduction)


def info_nce(image_features: Tensor, text_features: Tensor, temperature: Tensor | float) -> Tensor:
    """Symmetric InfoNCE: each image finds its text among all texts, and the other way round.

    Args:
        image_features: (B, E) unit vectors.
        text_features: (B, E) unit vectors; row i belongs to image i.
        temperature: what cosine similarities are divided by; ``1 / scale``.

    Returns:
        () mean over rows and directions.

    Reference: CLIP, https://arxiv.org/abs/2103.00020, fig. 3.
    """
    to_texts = row_contrast(image_features, text_features, temperature)
    to_images = row_contrast(text_features, image_features, temperature)
    return (to_texts + to_images) / 2


class SoftContrast(NamedTuple):
    """One direction of image-text contrast with soft targets.

    Args:
        loss: () sum over the rows.
        sims: (B, C) similarities of the rows with the columns.
        sims_m: (B, C) those of the momentum copy's rows.
        targets: (B, C) distributions over the columns.
    """

    loss: Tensor
    sims: Tensor
    sims_m: Tensor
    targets: Tensor


def soft_contrast(
    rows: Tensor,
    rows_m: Tensor,
    columns: Tensor,
    labels: Tensor,
    temperature: Tensor | float,
    alpha: float,
) -> SoftContrast:
    """Contrast of rows with momentum columns, with targets that the momentum copy softens.

    The targets are ``alpha softmax(r_m . c / t) + (1 - alpha) y``: ALBEF, equation 6.

    Args:
        rows: (B, E) unit vectors, with gradients.
        rows_m: (B, E) the momentum copy's features of the same rows, r_m.
        columns: (C, E) the momentum copy's features of the other modality, c: batch and queue.
        labels: (B, C) true distributions y, see ``positives``.
        temperature: t, above 0.
        alpha: weight of the copy's distribution in the targets, in [0, 1].
    """
    with torch.no_grad():
        sims_m = similarities(rows_m, columns, temperature)  # (B, C)
        targets = alpha * F.softmax(sims_m, dim=1) + (1 - alpha) * labels  # (B, C)
    sims = similarities(rows, columns, temperature)  # (B, C)
    return SoftContrast(soft_cross_entropy(sims, targets), sims, sims_m, targets)


class SoftItc(NamedTuple):
    """Image-text contrast with soft targets, in both directions.

    Args:
        loss: () mean of the directions, reduced over the rows.
        i2t: images against texts.
        t2i: texts against images.
    """

    loss: Tensor
    i2t: SoftContrast
    t2i: SoftContrast


def soft_itc(
    image_features: Tensor,
    text_features: Tensor,
    image_features_m: Tensor,
    text_features_m: Tensor,
    temperature: Tensor | float,
    alpha: float,
    *,
    image_columns: Tensor | None = None,
    text_columns: Tensor | None = None,
    labels: Tensor | None = None,
    reduction: Reduction = "mean",
) -> SoftItc:
    """Contrast images and texts with momentum features, towards soft targets.

    Args:
        image_features: (B, E) unit vectors.
        text_features: (B, E) unit vectors.
        image_features_m: (B, E) the momentum copy's.
        text_features_m: (B, E) the momentum copy's.
        temperature: what cosine similarities are divided by.
        alpha: weight of the copy's distribution in the targets, in [0, 1].
        image_columns: (C, E) momentum features to contrast with, of this batch, other processes and
            a queue; None is ``image_features_m``.
        text_columns: (C, E) likewise.
        labels: (B, C) true distributions over the columns; None is the identity.
        reduction: over the rows.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, eq. 1 and 6.
    """
    images = image_features_m if image_columns is None else image_columns
    texts = text_features_m if text_columns is None else text_columns
    if labels is None:
        labels = torch.eye(len(image_features), device=image_features.device)  # (B, B)
    given = (labels, temperature, alpha)
    i2t = soft_contrast(image_features, image_features_m, texts, *given)
    t2i = soft_contrast(text_features, text_features_m, images, *given)
    total = (i2t.loss + t2i.loss) / 2
    return SoftItc(reduced(total, len(image_features), reduction), i2t, t2i)


def positives(ids: Tensor, column_ids: Tensor) -> Tensor:
    """Spread one in each row over the columns of the same image.

    Args:
        ids: (B,) image ids of the rows.
        column_ids: (C,) image ids of the columns.

    Returns:
        (B, C) distributions.
    """
    same = (ids[:, None] == column_ids[None, :]).float()  # (B, C)
    return same / same.sum(dim=1, keepdim=True)


# ---- the losses of a step


@registry.register("loss", "itc")
class ImageTextContrast(nn.Module):
    """Image-text contrast against momentum features, with soft targets.

    Rows are this batch's features; columns are the momentum features of this batch and a queue of
    earlier ones. Targets mix the true pairing with the momentum copy's similarities.

    Args:
        queue_size: earlier pairs to contrast against, Q.
        alpha: weight of the momentum copy's distribution in the targets.
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
        queue, momentum = self.queue, shared.momentum
        image_columns = torch.cat([image_m, queue.image_queue.T])  # (G + Q, E)
        found = soft_itc(
            shared.image_features,
            shared.text_features,
            momentum.image_features,
            momentum.text_features,
            shared.temperature,
            shared.step_info.ramped(self.alpha, self.ramp),
            image_columns=image_columns,
            text_columns=torch.cat([text_m, queue.text_queue.T]),  # (G + Q, E)
            labels=self._labels(shared, ids, first, len(image_columns)),  # (B, G + Q)
            reduction="sum",
        )
        for name, side in (("i2t", found.i2t), ("t2i", found.t2i)):
            shared.hand_out(**{f"sim_{name}": side.sims, f"sim_{name}_m": side.sims_m})
            shared.hand_out(**{f"sim_{name}_targets": side.targets})
        if torch.is_grad_enabled():
            self._remember(image_m, text_m, ids)
        return global_mean(found.loss, len(shared.image_features))

    def _columns(self, shared: Shared) -> tuple[Tensor, Tensor, Tensor, int]:
        """Momentum features and image ids of the batch, and the column of this process's row 0."""
        momentum = shared.momentum
        batch = momentum.image_features, momentum.text_features, shared.image_ids
        if self.negatives == "local":
            return *batch, 0
        first = first_row(len(batch[2]))
        image, text, ids = (distributed.all_gather(t) for t in batch)
        return image, text, ids, first

    def _labels(self, shared: Shared, ids: Tensor, first: int, num_columns: int) -> Tensor:
        if self.queue.has_ids:
            return positives(shared.image_ids, torch.cat([ids, self.queue.idx_queue[0]]))
        own = torch.arange(len(shared.image_features), device=ids.device) + first
        return F.one_hot(own, num_columns).float()

    def _remember(self, image: Tensor, text: Tensor, ids: Tensor) -> None:
        if self.negatives == "local":  # the queue is one and the same on every process
            image, text, ids = (distributed.all_gather(t) for t in (image, text, ids))
        self.queue.push(image, text, ids)


@registry.register("loss", "info_nce")
class InfoNce(nn.Module):
    """Symmetric InfoNCE between matching rows, over all processes.

    Args:
        negatives: ``global`` contrasts with the batch of all processes, ``local`` with this one's.
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).
        column_gradients: train also what the rows are compared with; without, each direction
            trains the side of its rows alone.
        same_image_positive: pairs of one image (``image_id``) are each other's positives.

    Reference: CLIP, https://arxiv.org/abs/2103.00020, fig. 3.
    """

    requires = (Contrasts,)

    def __init__(
        self,
        negatives: Scope = "global",
        label_smoothing: float = 0.0,
        column_gradients: bool = True,
        same_image_positive: bool = False,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.label_smoothing, self.column_gradients = label_smoothing, column_gradients
        self.same_image_positive = same_image_positive

    def forward(self, shared: Shared) -> Tensor:
        """() mean over both directions and all rows of all processes."""
        image, text = shared.image_features, shared.text_features  # (B, E), or (B, Q, E), each
        images, texts, first = image, text, 0
        if not self.column_gradients:
            images, texts = image.detach(), text.detach()
        if self.negatives == "global":
            first = first_row(len(image))
            images = distributed.gather_with_grad(images, even=False)  # (G, E)
            texts = distributed.gather_with_grad(texts, even=False)  # (G, E)
        total = self._sum(shared, image, texts, first)
        total += self._sum(shared, text, images, first)
        return global_mean(total / 2, len(image))

    def _sum(self, shared: Shared, rows: Tensor, columns: Tensor, first: int) -> Tensor:
        targets = self._targets(shared)
        smoothing = self.label_smoothing
        return row_contrast(rows, columns, shared.temperature, first, "sum", targets, smoothing)

    def _targets(self, shared: Shared) -> Tensor | None:
        if not self.same_image_positive:
            return None
        ids = shared.image_ids
        everywhere = self.negatives == "global"
        return positives(ids, distributed.all_gather(ids) if everywhere else ids)  # (B, G)
