"""CLIP's image and text processors."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Literal

import numpy
from PIL import Image
from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize, height_width
from lavis_lite.data.files.deep_grey import to_rgb
from lavis_lite.data.image_processors import MEAN, STD, Normalise, random_crop
from lavis_lite.data.pictures import as_picture
from lavis_lite.data.text_processors import one_text
from lavis_lite.errors import ConfigError

_SPACES = re.compile(r"\s+")
Interpolation = Literal["bicubic", "bilinear"]


@registry.register("processor", "clip_image_eval")
class ClipImageEval:
    """Resize an image to just cover the target, crop its centre and normalise; or stretch it.

    Args:
        image_size: side of the central square, or (height, width) of the crop.
        mean, std: per channel; CLIP's by default.
        stretch: resize the whole image to the target, whatever its shape, instead of cropping.
        interpolation: of the resizing.
    """

    def __init__(
        self,
        image_size: ImageSize = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stretch: bool = False,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        self.size, self.stretch = height_width(image_size), stretch
        self._resampling = Image.Resampling[interpolation.upper()]
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        """Return the image as (3, H, W)."""
        image = as_picture(image)
        rows, columns = self.size
        if self.stretch:
            return self._normalise(to_rgb(image).resize((columns, rows), self._resampling))
        scale = max(rows / image.height, columns / image.width)
        # Rounded down as torchvision does; otherwise the longer side could gain a pixel.
        width = max(columns, int(image.width * scale))
        height = max(rows, int(image.height * scale))
        resized = to_rgb(image).resize((width, height), self._resampling)
        left, top = round((width - columns) / 2), round((height - rows) / 2)
        return self._normalise(resized.crop((left, top, left + columns, top + rows)))

    @property
    def recipe(self) -> dict[str, object]:
        """The processor as numbers, for exported models (``models/export/pictures.py``)."""
        return {"resize": "cover", "size": list(self.size), **self._normalise.statistics}


@registry.register("processor", "clip_image_train")
class ClipImageTrain:
    """Crop nearly the whole image at random, resize and normalise.

    Args:
        image_size: side of the square that a crop is stretched to, or its (height, width).
        mean, std: per channel; CLIP's by default.
        min_scale, max_scale: share of the image's area that a crop has.
        interpolation: of the resizing.
    """

    def __init__(
        self,
        image_size: ImageSize = 224,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_scale: float = 0.9,
        max_scale: float = 1.0,
        interpolation: Interpolation = "bicubic",
    ) -> None:
        if not 0 < min_scale <= max_scale <= 1:
            raise ConfigError(
                f"clip_image_train: min_scale={min_scale}, max_scale={max_scale};"
                " 0 < min_scale <= max_scale <= 1"
            )
        self.size = height_width(image_size)
        self.scale = (min_scale, max_scale)
        self._resampling = Image.Resampling[interpolation.upper()]
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        """Return the image as (3, H, W)."""
        image = as_picture(image)
        rng = numpy.random.default_rng() if rng is None else rng
        box = random_crop(*image.size, self.scale, rng)
        height, width = self.size
        cropped = to_rgb(image).crop(box).resize((width, height), self._resampling)
        return self._normalise(cropped)


@registry.register("processor", "clip_caption")
class ClipCaption:
    """Unescape HTML entities and collapse whitespace in a text; the tokenizer does the rest.

    Case and punctuation stay, because the vocabulary decides about them.

    Args:
        lowercase: lower the case here, for models trained so whose vocabulary has both cases, as
            SigLIP 2's.
    """

    def __init__(self, lowercase: bool = False) -> None:
        self.lowercase = lowercase

    def __call__(self, text: str, rng: numpy.random.Generator | None = None) -> str:
        """Return the cleaned text."""
        cleaned = _SPACES.sub(" ", html.unescape(html.unescape(one_text(text)))).strip()
        return cleaned.lower() if self.lowercase else cleaned
