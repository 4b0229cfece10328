"""Masked language modelling: hidden words, found from the rest of the text and the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.errors import ConfigError
from lavis_lite.losses.contrastive import soft_cross_entropy
from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.modules.interfaces import FindsWords, Tokenizer
from lavis_lite.modules.text.text_batch import TextBatch

STREAM = 2  # of the step's random numbers; matching draws from 0 and 1
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens; the rest stays as it is


class MaskedText(NamedTuple):
    """A text with hidden words.

    text: ids with masks and random words in their places, (B, T), and the mask of padding.
    chosen: (B, T) bool, which tokens are to be found.
    """

    text: TextBatch
    chosen: Tensor


@registry.register("loss", "mlm")
class MaskedLanguageModelling(nn.Module):
    """Cross-entropy of words that are hidden, mixed with what the momentum copy takes them for.

    Each word is chosen with the same probability; of those chosen 80 % become ``[MASK]``, 10 % a
    random word, 10 % stay. The start and the end of a text are no words. What is chosen depends on
    the step's seed and on a row's place in the joined batch: not on the number of processes.

    Args:
        probability: that a word is chosen, in (0, 1).
        alpha: share of the momentum copy's opinion in the targets, in [0, 1].
        ramp: fraction of the run over which ``alpha`` grows from 0.
        model: says how its tokenizer hides words; towers and head are the model's.

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
        targets = shared.text.ids[chosen]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        alpha = self.alpha * min(1.0, shared.progress / self.ramp if self.ramp else 1.0)
        if alpha:
            with torch.no_grad():
                opinion = _predict(shared.momentum, hidden, chosen).softmax(dim=1)
            loss = (1 - alpha) * loss + alpha * soft_cross_entropy(logits, opinion)
        shared.hand_out(mlm_labels=targets.detach())
        return global_mean(loss, chosen.sum())

    @torch.no_grad()
    def hide(self, shared: Shared[FindsWords]) -> MaskedText:
        """The step's texts with words hidden."""
        model, text = shared.model, shared.text
        num_rows, length = text.ids.shape
        counts = distributed.all_gather_object(num_rows)
        first = sum(counts[: distributed.rank()])
        generator, width = shared.generator(STREAM), max(model.max_length, length)
        # As wide as any text may be: the longest one of a process must not move the numbers.
        drawn = torch.rand(2, sum(counts), width, generator=generator)
        words = torch.randint(len(model.tokenizer), (sum(counts), width), generator=generator)
        place = slice(first, first + num_rows), slice(length)
        (choice, fate), words = drawn[:, *place].to(text.ids.device), words[place].to(text.ids)
        chosen = (choice < self.probability) & is_word(text, model.tokenizer)
        mask_id = model.tokenizer.mask_id
        assert mask_id is not None, "refused when the loss was built"
        ids = text.ids.masked_fill(chosen & (fate < MASK_SHARE), mask_id)
        random = chosen & (fate >= MASK_SHARE) & (fate < MASK_SHARE + RANDOM_SHARE)
        return MaskedText(TextBatch(torch.where(random, words, ids), text.mask), chosen)


def is_word(text: TextBatch, tokenizer: Tokenizer) -> Tensor:
    """(B, T) bool: neither padding nor the start or the end of a text."""
    framing = (text.ids == tokenizer.cls_id) | (text.ids == tokenizer.sep_id)
    return text.mask.bool() & ~framing


def _predict(view: Shared[FindsWords], text: TextBatch, chosen: Tensor) -> Tensor:
    """(M, V) logits, fp32, of the model or of its momentum copy."""
    return view.model.predict_words(view.image_context, text, chosen).float()
