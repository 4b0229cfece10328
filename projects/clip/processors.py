"""What CLIP does to images and texts before it reads them."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy
from PIL import Image
from torch import Tensor

from lavis_lite import registry
from lavis_lite.data.transforms import MEAN, STD, Normalise, random_crop
from lavis_lite.errors import ConfigError

_SPACES = re.compile(r"\s+")


@registry.register("processor", "clip_image_eval")
class ClipImageEval:
    """The central square, its shorter side resized to S first; normalised. Nothing is stretched.

    Args:
        image_size: S.
        mean, std: per channel; CLIP's by default.
    """

    def __init__(
        self,
        image_size: int = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        self.image_size = image_size
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        """(3, S, S)."""
        size = self.image_size
        scale = size / min(image.size)
        # Rounded down as torchvision does: the longer side of a picture may gain a pixel else.
        width, height = (max(size, int(side * scale)) for side in image.size)
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - size) / 2), round((height - size) / 2)
        return self._normalise(resized.crop((left, top, left + size, top + size)))


@registry.register("processor", "clip_image_train")
class ClipImageTrain:
    """A random crop of nearly the whole image, resized to a square; normalised.

    Args:
        image_size: S.
        mean, std: per channel; CLIP's by default.
        min_scale, max_scale: share of the image's area that a crop has.
    """

    def __init__(
        self,
        image_size: int = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_scale: float = 0.9,
        max_scale: float = 1.0,
    ) -> None:
        if not 0 < min_scale <= max_scale <= 1:
            raise ConfigError(
                f"clip_image_train: min_scale={min_scale}, max_scale={max_scale};"
                " 0 < min_scale <= max_scale <= 1"
            )
        self.image_size = image_size
        self.scale = (min_scale, max_scale)
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        """(3, S, S)."""
        rng = numpy.random.default_rng() if rng is None else rng
        box = random_crop(*image.size, self.scale, rng)
        size = (self.image_size, self.image_size)
        cropped = image.convert("RGB").crop(box).resize(size, Image.Resampling.BICUBIC)
        return self._normalise(cropped)


@registry.register("processor", "clip_caption")
class ClipCaption:
    """A text as it is, without HTML's entities and runs of whitespace; the tokenizer does the rest.

    Case and punctuation stay: what they are worth is up to the vocabulary.
    """

    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        """The cleaned text."""
        return _SPACES.sub(" ", html.unescape(html.unescape(text))).strip()
