"""The class of an image, or of several, with a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Losses, Texts, checked_samples
from lavis_lite.models.momentum import MomentumCopy
from lavis_lite.models.multimodal import GroundedModel
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import needed, optional
from lavis_lite.modules.text.wordpiece import WordPiece


class Classification(GroundedModel):
    """An image-grounded text encoder and a classifier; visual entailment, for one.

    A subclass for several images per text names them in ``image_names``; its ``image_context`` gets
    the tokens of all first images, then those of all second ones.

    Args:
        visual_encoder, text_encoder, tokenizer, image_size, max_length: as of ``GroundedModel``.
        cls_head: from a text's first state, read with its images, to logits, (B, D) -> (B, C).
        losses: name -> loss.
    """

    image_names: tuple[str, ...] = ("image",)  # of a sample
    momentum_pairs = ("visual_encoder", "text_encoder", "cls_head")
    momentum: MomentumCopy

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: Med,
        tokenizer: WordPiece,
        *,
        cls_head: nn.Module,
        image_size: ImageSize,
        max_length: int,
        losses: Losses | None = None,
    ) -> None:
        super().__init__(
            visual_encoder, text_encoder, tokenizer, image_size=image_size, max_length=max_length
        )
        self.cls_head = cls_head
        self.add_losses(losses)

    def classify(self, image_tokens: Tensor, text: Texts) -> Tensor:
        """Tokens of the images of B texts -> (B, C) logits, fp32.

        Args:
            image_tokens: (B, N, D), or of two images per text (2B, N, D), all first ones first.
            text: B texts.
        """
        states = self.read(self.image_context(image_tokens), text)  # (B, T, D)
        return self.cls_head(states[:, 0]).float()

    def predict(self, samples: Samples) -> dict[str, Any]:
        """Logits of a batch, without gradients and dropout.

        Args:
            samples: images and texts as for training; ``label`` (B,) where it is known.

        Returns:
            ``predictions`` (B, C) logits and ``targets``, the labels (None where unknown).

        Raises:
            ConfigError: samples without an image, or not one text for each.
        """
        samples = checked_samples(samples, self)
        images = [needed(samples, name) for name in self.image_names]
        label = optional(samples, "label")
        with torch.no_grad(), eval_mode(self):
            text = self.tokenize(needed(samples, "text_input"))
            logits = self.classify(self.encode_image(torch.cat(images)), text)
        targets = label.to(self.device) if isinstance(label, Tensor) else label
        return {"predictions": logits, "targets": targets}
