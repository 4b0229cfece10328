"""Language modelling: the text, word by word, given the image."""

from __future__ import annotations

import logging

import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.losses.cross_entropy import Reduction, reduced
from lavis_lite.losses.shared import Shared, global_mean
from lavis_lite.modules.interfaces import Decodes

IGNORED = -100
log = logging.getLogger(__name__)


def next_tokens(ids: Tensor, mask: Tensor, prompt_length: int = 0) -> Tensor:
    """Return the token that each position is to predict.

    Args:
        ids: (B, T).
        mask: (B, T), 0 at padding.
        prompt_length: leading tokens of a text that are given, not learnt.

    Returns:
        (B, T - 1) ids, ``IGNORED`` where the next token is padding or the prompt's.
    """
    targets = ids.masked_fill(~mask.bool(), IGNORED)[:, 1:].clone()  # (B, T - 1)
    targets[:, : max(prompt_length - 1, 0)] = IGNORED
    return targets


def lm_cross_entropy(
    logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy of next tokens, ``-log p(w_t | w_<t, image)``, in fp32.

    With label smoothing s the target is ``(1 - s) onehot(w_t) + s / V``.

    Args:
        logits: (B, T, V); the last position predicts nothing that is known.
        targets: (B, T - 1) ids, as of ``next_tokens``.
        label_smoothing: s, in [0, 1).
        reduction: over the tokens that are not ``IGNORED``.

    Returns:
        () loss.

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.2.
    """
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),  # (B * (T - 1), V)
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return reduced(total, (targets != IGNORED).sum(), reduction)


@registry.register("loss", "lm")
class LanguageModelling(nn.Module):
    """Cross-entropy of each next token given the image and the tokens before it.

    Tokens of the model's prompt and padding are not counted.

    Args:
        label_smoothing: weight of the uniform distribution in the targets, in [0, 1).

    Reference: BLIP, https://arxiv.org/abs/2201.12086, section 3.2.
    """

    requires = (Decodes,)

    def __init__(self, label_smoothing: float = 0.1) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self._looked_for_prompt = False

    def forward(self, shared: Shared[Decodes]) -> Tensor:
        """() mean over the counted tokens of all processes."""
        model = shared.model
        text = shared.text
        logits = model.decode_logits(shared.image_context, text)  # (B, T, V)
        targets = next_tokens(text.ids, text.mask, model.prompt_length)  # (B, T - 1)
        shared.hand_out(decoder_logits=logits, decoder_labels=targets)
        self._look_for_prompt(targets, model.prompt_length)
        total = lm_cross_entropy(logits, targets, self.label_smoothing, "sum")
        return global_mean(total, (targets != IGNORED).sum())

    def _look_for_prompt(self, targets: Tensor, prompt_length: int) -> None:
        """Warn if the prompt swallows a whole text: a loss of 0 would look learnt.

        Of the first batch alone, since looking waits for the device.
        """
        if self._looked_for_prompt or not prompt_length:
            return
        self._looked_for_prompt = True
        if num_empty := int((targets == IGNORED).all(dim=1).sum()):
            log.warning(
                "lm: %d of %d texts have nothing to learn: their first %d tokens are taken for the "
                "model's prompt. Texts to train on start with it; the text processor blip_caption "
                "puts it there (`prompt`)",
                num_empty,
                len(targets),
                prompt_length,
            )
