"""The class of an image, or of several, with a text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.losses.shared import Shared
from lavis_lite.models.base import LossSpecs
from lavis_lite.models.encoders import GroundedModel, Spec, texts_of
from lavis_lite.models.images import images_of
from lavis_lite.models.momentum import add_distillation, momentum_view
from lavis_lite.models.multimodal import Reading
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.attention import KeyValue
from lavis_lite.modules.output import Samples


class Classifying(Reading):
    """The class of an image with its text: what reads both, and a head of two layers.

    Needs ``cls_head`` besides.
    """

    cls_head: nn.Module
    device: torch.device
    looks_at: tuple[str, ...] = ("image",)  # the images of a sample, by name

    def image_kv(self, shared: Shared) -> list[KeyValue]:
        """What the text looks at: the projected images of a step."""
        return shared.kv(self.text_tower)

    def classify(self, shared: Shared) -> Tensor:
        """(B, C) logits of a step's pairs, fp32."""
        return self.cls_head(self.read(self.image_kv(shared), shared.text)[:, 0]).float()

    def predict(self, samples: Samples) -> dict[str, Any]:
        """Logits of a batch, without gradients and dropout.

        Args:
            samples: images and texts as for training; ``label`` (B,) where it is known.

        Returns:
            ``predictions`` (B, C) logits and ``targets``, the labels (None where unknown).

        Raises:
            ConfigError: samples without an image, or not one text for each.
        """
        if missing := [name for name in self.looks_at if name not in samples]:
            raise ConfigError(f"predict: the samples have no {', '.join(missing)}")
        given = {
            key: value.to(self.device) if isinstance(value, Tensor) else value
            for key, value in samples.items()
        }
        given |= {name: images_of(samples, self.device, name) for name in self.looks_at}
        given["text_input"] = texts_of(samples, len(given[self.looks_at[0]]))
        with torch.no_grad(), eval_mode(self):
            logits = self.classify(Shared(self, given))
        return {"predictions": logits, "targets": given.get("label")}


class PairClassifying(Classifying):
    """The class of a text with two images, ``image0`` and ``image1``, read in one pass."""

    looks_at = ("image0", "image1")

    def image_kv(self, shared: Shared) -> list[Any]:
        """What the text looks at: both projected images of a step."""
        tokens = self.encode_image(torch.cat([shared.samples[name] for name in self.looks_at]))
        return self.project_pair(*tokens.chunk(2))

    def project_pair(self, first: Tensor, second: Tensor) -> list[Any]:
        """Tokens (B, N, D) of two images -> what each layer of the text tower looks at."""
        raise NotImplementedError


def class_head(width: int, num_classes: int) -> nn.Sequential:
    """(B, D) -> (B, C) logits: two layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_classes))


class Classification(Classifying, GroundedModel):
    """An image-grounded text encoder and a classifier; visual entailment, for one.

    Args:
        vision: the vision encoder's component.
        text: the text encoder's component.
        num_classes: number of classes C.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
        use_distill: keep a momentum copy, whose opinion the loss mixes into its targets.
        momentum: decay of the momentum copy per optimizer step.
        losses: name -> component.
    """

    momentum_pairs = ("visual_encoder", "text_encoder", "cls_head")

    def __init__(
        self,
        vision: Spec,
        text: Spec,
        num_classes: int,
        image_size: ImageSize = 384,
        tokenizer: str | None = None,
        max_length: int = 40,
        use_distill: bool = True,
        momentum: float = 0.995,
        losses: LossSpecs | None = None,
    ) -> None:
        super().__init__(vision, image_size, tokenizer, max_length)
        self.text_encoder = self.build_text(text)
        self.cls_head = class_head(self.text_tower.width, num_classes)
        add_distillation(self, use_distill, momentum)
        self.add_losses(losses)

    @property
    def momentum(self) -> Classifying:
        """The momentum copy, as something that classifies."""
        return momentum_view(Classifying, self)
