"""The vision tower of BLIP-2's models and the norm between it and the Q-Former.

The tower is any vision encoder; the published ones stop one block before their end and have no norm
there (``final_norm: false`` of a ``timm/*`` component).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Spec
from lavis_lite.models.build import build_vision, width_of
from lavis_lite.models.images import SeesImages, TakesImages, as_images
from lavis_lite.modules import vision as vision_tokens
from lavis_lite.modules.layers.modes import freeze_module


class VisionNorm(nn.LayerNorm):
    """A LayerNorm of a tower's tokens (B, N, D), computed in fp32; it trains with the Q-Former.

    Args:
        width: D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise (B, N, D) tokens; they keep their dtype, whatever that of the weights is."""
        with torch.autocast(tokens.device.type, enabled=False):
            weight, bias = self.weight.float(), self.bias.float()
            normed = nn.functional.layer_norm(
                tokens.float(), self.normalized_shape, weight, bias, self.eps
            )
        return normed.to(tokens.dtype)


class Towers(TakesImages, SeesImages, Protocol):
    """The parts that ``encode_image`` reads."""

    ln_vision: VisionNorm


def build_towers(
    vision: Spec, image_size: ImageSize, freeze_vision: bool
) -> tuple[nn.Module, VisionNorm]:
    """Build a vision tower and the norm behind it.

    Args:
        vision: the tower's component.
        image_size: side, or (height, width), of the images.
        freeze_vision: take the tower out of training and hold it in evaluation mode.

    Raises:
        ConfigError: a tower without ``width``, or one that cannot be built so.
    """
    encoder = build_vision(vision, image_size)
    if freeze_vision:
        freeze_module(encoder)
    return encoder, VisionNorm(width_of(encoder))


def encode_image(model: Towers, image: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) as the normalised tokens (B, N, D) that queries look at."""
    images = as_images(image, model)
    return model.ln_vision(vision_tokens.encode(model.visual_encoder, images))
