"""The pairwise sigmoid loss: every image with every text is a question of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.contrastive import Scope
from lavis_lite.losses.cross_entropy import Reduction, reduced
from lavis_lite.losses.shared import Shared, first_row, global_mean, similarities
from lavis_lite.modules.interfaces import ContrastsPairwise


def pairwise_sigmoid(
    image_features: Tensor,
    text_features: Tensor,
    temperature: Tensor | float,
    bias: Tensor | float,
    first: int = 0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Binary cross-entropy of every pair, ``-log sigmoid(z_ij (x_i . y_j / t + b))``.

    The sign z is 1 for a text with its own image and -1 for all others. Summed over the texts;
    divided by their number K, where images have several.

    Args:
        image_features: (B, E) unit vectors x.
        text_features: (G, E) unit vectors y, or (G, K, E); image i belongs to text ``first + i``,
            or to those K of that row.
        temperature: t, above 0.
        bias: () b; low at first, because nearly all pairs are false.
        first: the text of image 0.
        reduction: over the images.

    Returns:
        () loss.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343, algorithm 1; with several texts the
    multi-positive loss of https://arxiv.org/abs/2412.03561, section 3.3.
    """
    several = text_features.shape[1] if text_features.ndim == 3 else 1
    texts = text_features.reshape(-1, text_features.shape[-1])  # (G * K, E)
    logits = similarities(image_features, texts, temperature) + bias  # (B, G * K)
    owner = torch.arange(len(texts), device=logits.device) // several
    rows = torch.arange(len(logits), device=logits.device) + first
    total = pair_cross_entropy(logits, owner == rows[:, None]).sum() / several
    return reduced(total, len(logits), reduction)


def pair_cross_entropy(logits: Tensor, positive: Tensor) -> Tensor:
    """``-log sigmoid`` of the logits of true pairs, and of minus those of all others.

    Args:
        logits: (...) of pairs, by which they belong together.
        positive: (...) bool, which of them do.

    Returns:
        (...) loss of each.
    """
    return -F.logsigmoid(torch.where(positive, logits, -logits))


@registry.register("loss", "sigmoid")
class PairwiseSigmoid(nn.Module):
    """Binary cross-entropy of every image with every text: does this text belong to it?

    Temperature and ``logit_bias`` are the model's. Summed over the texts, mean over the images; of
    several texts of an image (``data.texts_per_image``) each is true.

    Args:
        negatives: ``global`` pairs images with the texts of all processes, ``local`` with this
            one's.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343, algorithm 1.
    """

    requires = (ContrastsPairwise,)

    def __init__(self, negatives: Scope = "global") -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, shared: Shared[ContrastsPairwise]) -> Tensor:
        """() mean over all images of all processes."""
        image, texts, first = shared.image_features, shared.several_text_features, 0
        if self.negatives == "global":
            first = first_row(len(image))
            texts = distributed.gather_with_grad(texts, even=False)  # (G, K, E)
        bias = shared.model.logit_bias
        total = pairwise_sigmoid(image, texts, shared.temperature, bias, first, "sum")
        return global_mean(total, len(image))
