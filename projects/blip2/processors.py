"""BLIP-2's image processor for training, under LAVIS's name."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.data.image_processors import BlipImageTrain


@registry.register("processor", "blip2_image_train")
def blip2_image_train(
    image_size: ImageSize = 364,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    min_scale: float = 0.5,
    max_scale: float = 1.0,
) -> BlipImageTrain:
    """Crop at random, resize, mirror every other image and normalise; no other augmentation.

    Args:
        image_size: side of the square that a crop is stretched to, or its (height, width).
        mean, std: per channel; CLIP's by default.
        min_scale, max_scale: share of the image's area that a crop has.
    """
    return BlipImageTrain(image_size, mean, std, min_scale, max_scale, augment=False)
