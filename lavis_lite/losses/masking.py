"""Masked language modelling: masked words, predicted from the rest of the text and the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.errors import ConfigError
from lavis_lite.losses.cross_entropy import Reduction, distilled_cross_entropy
from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.modules.interfaces import FindsWords, Tokenizer
from lavis_lite.modules.text.text_batch import TextBatch

STREAM = 2  # of the step's random numbers; matching draws from 0 and 1
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the rest stays as it is


class MaskedText(NamedTuple):
    """A text with masked words.

    Args:
        text: ids with mask tokens and random words in their places, (B, T), and the padding mask.
        chosen: (B, T) bool, the tokens to be predicted.
    """

    text: TextBatch
    chosen: Tensor


def mask_words(
    ids: Tensor,
    maskable: Tensor,
    choice: Tensor,
    fate: Tensor,
    random_words: Tensor,
    probability: float,
    mask_id: int,
) -> tuple[Tensor, Tensor]:
    """Corrupt a text as BERT does, from random numbers that the caller draws.

    A token is chosen where ``choice < probability``. Of those chosen, ``fate`` below 0.8 makes a
    mask token, from 0.8 to 0.9 a random word, and leaves the rest as it is.

    Args:
        ids: (B, T).
        maskable: (B, T) bool, the tokens that may be chosen.
        choice: (B, T) uniform in [0, 1).
        fate: (B, T) uniform in [0, 1).
        random_words: (B, T) ids.
        probability: that a token is chosen, in (0, 1).
        mask_id: of the mask token.

    Returns:
        The corrupted ids and the chosen tokens (bool), each (B, T).

    Reference: BERT, https://arxiv.org/abs/1810.04805, section 3.1.
    """
    chosen = (choice < probability) & maskable  # (B, T)
    masked = ids.masked_fill(chosen & (fate < MASK_SHARE), mask_id)
    random = chosen & (fate >= MASK_SHARE) & (fate < MASK_SHARE + RANDOM_SHARE)  # (B, T)
    return torch.where(random, random_words, masked), chosen


def mlm_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    soft_targets: Tensor | None = None,
    alpha: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of masked words: ``(1 - alpha) H(y, p) + alpha H(q, p)``.

    Args:
        logits: (M, V) of the M masked words.
        targets: (M,) their ids y.
        soft_targets: (M, V) distributions q of the momentum copy; None is none.
        alpha: weight of the soft targets, in [0, 1].
        reduction: over the words.

    Returns:
        () loss.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, eq. 4 and 7.
    """
    return distilled_cross_entropy(logits, targets, soft_targets, alpha, reduction=reduction)


@registry.register("loss", "mlm")
class MaskedLanguageModelling(nn.Module):
    """Cross-entropy of masked words, mixed with that against the momentum copy's predictions.

    Each word is chosen with the same probability; of those chosen 80 % become ``[MASK]``, 10 % a
    random word, 10 % stay. The start and the end of a text are no words. The choice depends on the
    step's seed and on a row's place in the joined batch, not on the number of processes.

    Args:
        probability: that a word is chosen, in (0, 1).
        alpha: weight of the momentum copy's predictions in the targets, in [0, 1].
        ramp: fraction of the run over which ``alpha`` grows from 0.
        model: its tokenizer must have a mask token; towers and head are the model's.

    Reference: ALBEF, https://arxiv.org/abs/2107.07651, eq. 4 and 7; BERT,
    https://arxiv.org/abs/1810.04805, section 3.1.
    """

    requires = (FindsWords,)

    def __init__(
        self,
        probability: float = 0.15,
        alpha: float = 0.4,
        ramp: float = 0.1,
        *,
        model: FindsWords,
    ) -> None:
        super().__init__()
        if not 0 < probability < 1:
            raise ConfigError(f"mlm.probability: {probability}; a number between 0 and 1")
        if model.tokenizer.mask_id is None:
            raise ConfigError(
                "mlm: the model's tokenizer has no mask token, as GPT's; use one of BERT's kind "
                "(model.tokenizer)"
            )
        self.probability, self.alpha, self.ramp = probability, alpha, ramp

    def forward(self, shared: Shared[FindsWords]) -> Tensor:
        """() mean over the chosen words of all processes."""
        hidden, chosen = self.hide(shared)
        logits = _predict(shared, hidden, chosen)  # (M, V)
        targets = shared.text.ids[chosen]  # (M,)
        alpha = shared.step_info.ramped(self.alpha, self.ramp)
        soft_targets = None
        if alpha:
            with torch.no_grad():
                soft_targets = _predict(shared.momentum, hidden, chosen).softmax(dim=1)  # (M, V)
        loss = mlm_cross_entropy(logits, targets, soft_targets, alpha, "sum")
        shared.hand_out(mlm_labels=targets.detach())
        return global_mean(loss, chosen.sum())

    @torch.no_grad()
    def hide(self, shared: Shared[FindsWords]) -> MaskedText:
        """Mask words of the step's texts."""
        model, text = shared.model, shared.text
        num_rows, length = text.ids.shape
        counts = distributed.all_gather_object(num_rows)
        first, joined = sum(counts[: distributed.rank()]), sum(counts)
        generator, width = shared.generator(STREAM), max(model.max_length, length)
        # As wide as any text may be: the longest one of a process must not move the numbers.
        drawn = torch.rand(2, joined, width, generator=generator)  # (2, G, W)
        words = torch.randint(len(model.tokenizer), (joined, width), generator=generator)  # (G, W)
        place = slice(first, first + num_rows), slice(length)
        (choice, fate), words = drawn[:, *place].to(text.ids.device), words[place].to(text.ids)
        maskable = is_word(text, model.tokenizer)  # (B, T)
        mask_id = model.tokenizer.mask_id
        assert mask_id is not None, "refused when the loss was built"
        ids, chosen = mask_words(text.ids, maskable, choice, fate, words, self.probability, mask_id)
        return MaskedText(TextBatch(ids, text.mask), chosen)


def is_word(text: TextBatch, tokenizer: Tokenizer) -> Tensor:
    """Return (B, T) bool: neither padding nor the start or the end of a text."""
    framing = (text.ids == tokenizer.cls_id) | (text.ids == tokenizer.sep_id)
    return text.mask.bool() & ~framing


def _predict(view: Shared[FindsWords], text: TextBatch, chosen: Tensor) -> Tensor:
    """Return (M, V) logits, fp32, of the model or of its momentum copy."""
    return view.model.predict_words(view.image_context, text, chosen).float()
