"""The pairwise sigmoid loss: every image with every text is a question of its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import distributed, registry
from lavis_lite.losses.contrastive import Scope
from lavis_lite.losses.shared import Shared, global_mean, similarities
from lavis_lite.modules.interfaces import ContrastsPairwise


@registry.register("loss", "sigmoid")
class PairwiseSigmoid(nn.Module):
    """Binary cross-entropy of every image with every text: does this text belong to it?

    The logit of a pair is its cosine over the temperature, plus the model's ``logit_bias``, which
    starts low because nearly all pairs are false. Summed over the texts, mean over the images.

    Args:
        negatives: ``global`` pairs images with the texts of all processes, ``local`` with this
            one's.
        model: unused; the bias is the model's.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343, algorithm 1.
    """

    requires = (ContrastsPairwise,)

    def __init__(self, negatives: Scope = "global", *, model: Any = None) -> None:
        super().__init__()
        self.negatives = negatives

    def forward(self, shared: Shared[ContrastsPairwise]) -> Tensor:
        """() mean over all images of all processes."""
        image, texts, first = shared.image_features, shared.text_features, 0
        if self.negatives == "global":
            counts = distributed.all_gather_object(len(image))
            first = sum(counts[: distributed.rank()])
            texts = distributed.gather_with_grad(texts, even=False)
        logits = similarities(image, texts, shared.temperature) + shared.model.logit_bias  # (B, G)
        signs = torch.full_like(logits, -1.0)
        rows = torch.arange(len(image), device=image.device)
        signs[rows, rows + first] = 1.0
        return global_mean(-F.logsigmoid(signs * logits).sum(), len(image))
