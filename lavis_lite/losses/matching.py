"""Image-text matching: does this text describe this image?"""

from __future__ import annotations

import functools
import logging
import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.contrastive import Scope
from lavis_lite.losses.shared import Shared, first_row, global_mean, rows_of, similarities
from lavis_lite.modules.interfaces import LearnsMatching
from lavis_lite.modules.text.text_batch import TextBatch

log = logging.getLogger(__name__)

# ---- the mathematics


def draw_negatives(weights: Tensor, valid: Tensor, uniform: Tensor) -> Tensor:
    """Draw one column per row, with probability proportional to its weight (Gumbel-max).

    Args:
        weights: (B, G) at least 0.
        valid: (B, G) bool, the columns that may be drawn; a row without one gets any column.
        uniform: (B, G) random numbers in [0, 1).

    Returns:
        (B,) columns.
    """
    gumbel = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))  # (B, G)
    # A weight that underflowed to 0 still wins against a column that is not valid.
    scores = weights.clamp(min=1e-30).log() + gumbel  # (B, G)
    return scores.masked_fill(~valid, -math.inf).argmax(dim=1)


def hard_negative_weights(
    rows: Tensor, columns: Tensor, temperature: Tensor | float, epsilon: float
) -> Tensor:
    """Weigh negatives by their contrastive similarity, ``softmax(r . c / t) + epsilon``.

    Args:
        rows: (B, E) unit vectors r.
        columns: (G, E) unit vectors c of the other modality.
        temperature: t, above 0.
        epsilon: added so that every negative can be drawn.

    Returns:
        (B, G) weights.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.2.
    """
    return similarities(rows, columns, temperature).softmax(dim=1) + epsilon


class MatchingLoss(NamedTuple):
    """The matching loss of a batch.

    Args:
        total: () sum over the counted rows.
        num_rows: () number of counted rows.
        labels: (3, B) 1 for a match.
    """

    total: Tensor
    num_rows: Tensor
    labels: Tensor


def itm_cross_entropy(logits: Tensor, has_negative: Tensor) -> MatchingLoss:
    """Cross-entropy ``H(y, p(image, text))`` of true pairs and of their two negatives each.

    Args:
        logits: (3, B, 2) of the true pairs, of their texts with other images, and of their images
            with other texts; column 1 is a match.
        has_negative: (B,) bool; a pair without negatives counts with itself alone.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, eq. 2.
    """
    labels = torch.zeros(logits.shape[:2], dtype=torch.long, device=logits.device)  # (3, B)
    labels[0] = 1
    counted = torch.stack([torch.ones_like(has_negative), has_negative, has_negative])  # (3, B)
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="none"
    )  # (3 * B,)
    return MatchingLoss((losses * counted.flatten()).sum(), counted.sum(), labels)


# ---- the loss of a step


class Pool:
    """The pairs of all processes that negatives are drawn from.

    Args:
        shared: the step.
        scope: ``global``, or ``local`` for this process's pairs alone.
    """

    def __init__(self, shared: Shared, scope: Scope) -> None:
        self.shared = shared
        self.joined = scope == "global" and distributed.world_size() > 1
        gather = distributed.all_gather if self.joined else (lambda t: t)
        self.ids = gather(shared.image_ids)  # (G,)
        first = first_row(len(shared.image_ids)) if self.joined else 0
        self.rows = torch.arange(len(shared.image_ids), device=self.ids.device) + first  # (B,)
        self.valid = shared.image_ids[:, None] != self.ids[None, :]  # (B, G) another image

    def draw(self, weights: Tensor, stream: int) -> Tensor:
        """Draw one column per row, with probability proportional to its weight: (B, G) -> (B,).

        The noise of a row depends on the step and on the row's place in the joined batch, so that
        the number of processes does not matter. Rows without a valid column get any one.
        """
        size = len(self.ids)
        noise = torch.rand(size, size, generator=self.shared.generator(stream))  # (G, G)
        return draw_negatives(weights, self.valid, noise.to(weights.device)[self.rows])

    def texts(self) -> TextBatch:
        """The tokenised texts of all pairs, padded alike."""
        text = self.shared.text
        if not self.joined:
            return text
        length = int(
            distributed.all_reduce(
                torch.tensor(text.ids.shape[1], device=text.ids.device), op="max"
            )
        )
        extra = length - text.ids.shape[1]
        pad_id = self.shared.model.tokenizer.pad_id
        ids = F.pad(text.ids, (0, extra), value=pad_id)
        mask = F.pad(text.mask, (0, extra))
        return TextBatch(distributed.all_gather(ids), distributed.all_gather(mask))

    def text_states(self) -> tuple[Tensor, Tensor] | None:
        """Return states of the texts alone, this process's (B, T, D) and all pairs' (G, T, D).

        Gradients go back to their processes. None where matching does not start from such states.
        """
        if not getattr(self.shared.model, "fuses_states", False):
            return None
        own = self.shared.text_tokens
        if not self.joined:
            return own, own
        own_padded = F.pad(own, (0, 0, 0, self.texts().ids.shape[1] - own.shape[1]))
        return own, distributed.gather_with_grad(own_padded, even=False)

    def image_tokens(self) -> Tensor:
        """(G, N, D) image tokens of all pairs, with gradients back to their processes."""
        tokens = self.shared.image_tokens
        return distributed.gather_with_grad(tokens, even=False) if self.joined else tokens


@registry.register("loss", "itm")
class ImageTextMatching(nn.Module):
    """Matching true pairs against negatives.

    With ``hard`` or ``random`` negatives every pair gives three rows: itself, its text with another
    image, its image with another text. A row whose whole batch shows the same image has no
    negatives and gives one. ``all`` scores every image with every text.

    Args:
        negatives: ``hard`` draws in proportion to the contrastive similarity, ``random`` uniformly.
        scope: where negatives come from: the batch of all processes, or this one's (as published).
        epsilon: added to the similarities' softmax, so that every negative can be drawn.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, section 3.2; BLIP section 3.2.
    """

    requires = (LearnsMatching,)

    def __init__(
        self,
        negatives: Literal["hard", "random", "all"] = "hard",
        scope: Scope = "global",
        epsilon: float = 1e-4,
    ) -> None:
        super().__init__()
        self.negatives, self.scope, self.epsilon = negatives, scope, epsilon
        self.prior = self.prior_of(negatives)

    @staticmethod
    def prior_of(negatives: str = "hard", **_: object) -> float | None:
        """Return the loss of a model that has learnt nothing: the entropy of one match in three.

        Args:
            negatives: as of the loss, whose other arguments change nothing; None for ``all``.
        """
        return None if negatives == "all" else -math.log(1 / 3) / 3 - 2 * math.log(2 / 3) / 3

    def forward(self, shared: Shared[LearnsMatching]) -> Tensor:
        """() cross-entropy, mean over all rows of all processes."""
        pool = Pool(shared, self.scope)
        if len(pool.ids) < 2:
            warn_of_one()
        if self.negatives == "all":
            return self._all_pairs(shared, pool)
        has_negative = pool.valid.any(dim=1)  # (B,)
        image_index, text_index = self._choose(shared, pool)
        logits = self._logits(shared, pool, image_index, text_index)  # (3, B, 2)
        found = itm_cross_entropy(logits, has_negative)
        shared.hand_out(itm_logits=logits.flatten(0, 1), itm_labels=found.labels.flatten())
        return global_mean(found.total, found.num_rows)

    @torch.no_grad()
    def _choose(self, shared: Shared, pool: Pool) -> tuple[Tensor, Tensor]:
        """Choose for every pair a negative image and a negative text: two times (B,) places."""
        if self.negatives == "random":
            uniform = torch.ones(pool.valid.shape, device=pool.ids.device)
            return pool.draw(uniform, 0), pool.draw(uniform, 1)
        images, texts = shared.image_features, shared.text_features
        if pool.joined:
            images, texts = distributed.all_gather(images), distributed.all_gather(texts)
        given = shared.temperature, self.epsilon
        to_images = hard_negative_weights(shared.text_features, images, *given)  # (B, G)
        to_texts = hard_negative_weights(shared.image_features, texts, *given)  # (B, G)
        return pool.draw(to_images, 0), pool.draw(to_texts, 1)

    def _logits(
        self, shared: Shared, pool: Pool, image_index: Tensor, text_index: Tensor
    ) -> Tensor:
        """Return (3, B, 2): true pairs, own text with the other image, own image with the other."""
        model, context, text = shared.model, shared.image_context, shared.text
        others, states = pool.texts(), pool.text_states()
        # Both texts of an image are folded onto its keys and values: no copy of them is made.
        both = _interleave(text, TextBatch(others.ids[text_index], others.mask[text_index]), model)
        known = {} if states is None else {"states": _alternate(states[0], states[1][text_index])}
        own_image = model.match_pairs(context, both, **known).unflatten(0, (-1, 2))  # (B, 2, 2)
        if pool.joined:
            other_context = model.image_context(pool.image_tokens()[image_index])
        else:
            other_context = rows_of(context, image_index)
        known = {} if states is None else {"states": states[0]}
        other_image = model.match_pairs(other_context, text, **known)  # (B, 2)
        return torch.stack([own_image[:, 0], other_image, own_image[:, 1]])

    def _all_pairs(self, shared: Shared, pool: Pool) -> Tensor:
        """Every image of this process with every text of the pool, weighted half and half."""
        model, texts = shared.model, pool.texts()
        num_images = len(pool.valid)
        every = TextBatch(texts.ids.repeat(num_images, 1), texts.mask.repeat(num_images, 1))
        logits = model.match_pairs(shared.image_context, every)  # (B * G, 2)
        labels = (~pool.valid).long().flatten()  # (B * G,)
        losses = F.cross_entropy(logits.float(), labels, reduction="none")  # (B * G,)
        parts = [global_mean(losses[labels == c].sum(), (labels == c).sum()) for c in (0, 1)]
        return torch.stack(parts).mean()


@functools.cache
def warn_of_one() -> None:
    """Say once that a batch of one has no negatives."""
    log.warning(
        "itm: a batch of one pair has no negatives: only that the pair matches is trained. "
        "Matching is learnt from batches of several (data.batch_size, or more processes)"
    )


def _interleave(first: TextBatch, second: TextBatch, model: LearnsMatching) -> TextBatch:
    """Rows first[0], second[0], first[1], second[1]..., padded alike: (2B, T)."""
    length = max(first.ids.shape[1], second.ids.shape[1])

    def pad(text: TextBatch) -> tuple[Tensor, Tensor]:
        extra = (0, length - text.ids.shape[1])
        return F.pad(text.ids, extra, value=model.tokenizer.pad_id), F.pad(text.mask, extra)

    pairs = [
        torch.stack(tensors, dim=1).flatten(0, 1)
        for tensors in zip(pad(first), pad(second), strict=True)
    ]
    return TextBatch(*pairs)


def _alternate(first: Tensor, second: Tensor) -> Tensor:
    """Rows first[0], second[0], first[1]... of states (B, T, D), padded alike: (2B, T, D)."""
    length = max(first.shape[1], second.shape[1])
    padded = [F.pad(x, (0, 0, 0, length - x.shape[1])) for x in (first, second)]
    return torch.stack(padded, dim=1).flatten(0, 1)
