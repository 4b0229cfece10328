"""BLIP's image processors: a PIL image in, a normalised tensor (3, S, S) out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
import torch
from PIL import Image
from torch import Tensor

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize, height_width
from lavis_lite.data.augment import OPS, random_augment
from lavis_lite.data.files.deep_grey import to_rgb
from lavis_lite.data.pictures import as_picture
from lavis_lite.errors import ConfigError, suggest

# CLIP's statistics, which BLIP took over.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@registry.register("processor", "blip_image_eval")
class BlipImageEval:
    """The whole image, resized and normalised; to the last bit what the original gives.

    Args:
        image_size: side of the square that it is stretched to, or its (height, width).
        mean, std: per channel; CLIP's by default.
    """

    def __init__(
        self,
        image_size: ImageSize = 384,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ):
        self.size = height_width(image_size)
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        return self._normalise(_resized(_rgb(as_picture(image)), self.size))

    @property
    def recipe(self) -> dict[str, object]:
        """The processor as numbers, for exported models (``models/export/pictures.py``)."""
        return {"resize": "stretch", "size": list(self.size), **self._normalise.statistics}


@registry.register("processor", "blip_image_train")
class BlipImageTrain:
    """A random crop, resized, perhaps mirrored and augmented, normalised.

    Which of this is harmless depends on the captions: mirroring swaps left and right, cropping
    changes sizes and loses things, some operations change colours. Where captions speak of such
    things, use `hflip: false`, a `min_scale` near 1, and `augment: false` or a choice of `ops`.

    Args:
        image_size: side of the square that a crop is stretched to, or its (height, width).
        mean, std: per channel; CLIP's by default.
        min_scale, max_scale: share of the image's area that a crop has. BLIP pre-trains with 0.2.
        hflip: mirror every other image.
        augment: apply random operations.
        num_ops: operations drawn, with replacement; each is then applied or not, at even odds.
        magnitude: their strength, 0 to 10; at 5, BLIP's, brightness and sharpness do nothing.
        ops: names of operations to draw from, all ten by default.

    Raises:
        ConfigError: on an unknown operation or a scale out of range.
    """

    def __init__(
        self,
        image_size: ImageSize = 384,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        min_scale: float = 0.5,
        max_scale: float = 1.0,
        hflip: bool = True,
        augment: bool = True,
        num_ops: int = 2,
        magnitude: float = 5,
        ops: Sequence[str] | None = None,
    ):
        for op in ops or ():
            if op not in OPS:
                raise ConfigError(
                    f"blip_image_train: no operation {op!r}.{suggest(op, OPS)} Known: {list(OPS)}"
                )
        if not 0 < min_scale <= max_scale <= 1:
            raise ConfigError(
                f"blip_image_train: min_scale={min_scale}, max_scale={max_scale};"
                " 0 < min_scale <= max_scale <= 1"
            )
        self.size = height_width(image_size)
        self.scale = (min_scale, max_scale)
        self.hflip = hflip
        self.num_ops = num_ops if augment else 0
        self.magnitude = magnitude
        self.ops = tuple(ops or OPS)
        self._normalise = Normalise(mean or MEAN, std or STD)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        rng = numpy.random.default_rng() if rng is None else rng
        image = _rgb(as_picture(image))
        image = _resized(image.crop(random_crop(*image.size, self.scale, rng)), self.size)
        if self.hflip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = random_augment(image, self.ops, self.num_ops, self.magnitude, rng)
        return self._normalise(image)


class Normalise:
    """An RGB image of 8 bits to a float tensor (3, H, W): divided by 255, centred, scaled.

    The same three roundings in the same order as torchvision's ToTensor and Normalize.

    Args:
        mean, std: per channel, of values in [0, 1].
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if len(mean) != 3 or len(std) != 3:
            raise ConfigError(
                f"mean: {list(mean)}, std: {list(std)}; three numbers each, for red, green, blue"
            )
        self.mean = torch.tensor(list(mean), dtype=torch.float32)[:, None, None]
        self.std = torch.tensor(list(std), dtype=torch.float32)[:, None, None]

    @property
    def statistics(self) -> dict[str, list[float]]:
        """The ``mean`` and ``std`` of each channel."""
        return {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)  # (3, H, W)
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(self.mean).div_(self.std)


def random_crop(
    width: int, height: int, scale: tuple[float, float], rng: numpy.random.Generator
) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom) of a share of the area in `scale`.

    Its ratio of width to height is log-uniform in 3/4 to 4/3; where ten attempts don't fit, the
    largest central box of such a ratio is taken, as torchvision's RandomResizedCrop does.
    """
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    for _ in range(_ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * _RATIO[1])))
    h = min(height, max(1, round(width / _RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else to_rgb(image)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return image.resize((width, height), Image.Resampling.BICUBIC)
