"""The sigmoid loss of texts and of what each of them sees in an image."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.contrastive import Scope
from lavis_lite.losses.shared import Shared, first_row, global_mean
from lavis_lite.losses.sigmoid import pair_cross_entropy
from lavis_lite.modules.interfaces import ContrastsPairwise

_STREAM = 7  # of a step's random numbers: which text of another image is a negative


class ConditionsOnTexts(ContrastsPairwise, Protocol):
    """A model that embeds an image as a text sees it."""

    def conditioned_features(self, image_tokens: Tensor, text_features: Tensor) -> Tensor:
        """(B, N, D) and K texts of each image (B, K, E) -> (B, K, E) unit length, fp32."""
        ...


def compared_texts(texts: Tensor, choice: Tensor, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the texts that each image is compared with: its own K, and one of each other image.

    Args:
        texts: (G, K, E) of all images.
        choice: (B, G) which of the K texts stands for an image of G.
        first: the place in G of image 0 of B.

    Returns:
        (B, K + G, E) texts; (K + G,) bool, which of them are true; (B, K + G) bool, which of them
        count: all but the image's own among the G.
    """
    (num_images, size), several = choice.shape, texts.shape[1]
    rows = torch.arange(num_images, device=texts.device) + first
    columns = torch.arange(size, device=texts.device)
    chosen = torch.cat([texts[rows], texts[columns, choice]], dim=1)
    positive = torch.arange(several + size, device=texts.device) < several
    others = columns != rows[:, None]  # (B, G)
    return chosen, positive, torch.cat([others.new_ones(num_images, several), others], dim=1)


@registry.register("loss", "text_conditioned_sigmoid")
class TextConditionedSigmoid(nn.Module):
    """Binary cross-entropy of every image, as a text sees it, with that text.

    True are all texts of an image (``data.texts_per_image``); false is one text of each other
    image, drawn anew in each step. Summed over the texts, mean over the images. Temperature and
    ``logit_bias`` are the model's.

    Args:
        negatives: ``global`` pairs images with the texts of all processes, ``local`` with this
            one's.

    Reference: FLAIR, https://arxiv.org/abs/2412.03561, section 3.3.
    """

    requires = (ConditionsOnTexts,)

    def __init__(self, negatives: Scope = "global") -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, shared: Shared[ConditionsOnTexts]) -> Tensor:
        """() mean over all images of all processes."""
        texts, first = shared.several_text_features, 0  # (B, K, E)
        num_images = len(texts)
        if self.negatives == "global":
            first = first_row(num_images)
            texts = distributed.gather_with_grad(texts, even=False)  # (G, K, E)
        size, several = texts.shape[:2]
        draws = torch.randint(several, (size, size), generator=shared.generator(_STREAM))
        choice = draws[first : first + num_images].to(texts.device)
        chosen, positive, counted = compared_texts(texts, choice, first)
        seen = shared.model.conditioned_features(shared.image_tokens, chosen)
        logits = (seen * chosen).sum(dim=-1) / shared.temperature + shared.model.logit_bias
        losses = pair_cross_entropy(logits, positive) * counted  # (B, K + G)
        return global_mean(losses.sum(), num_images)
