"""Images as a model takes them, or an error that says what they should be.

A picture (a PIL image, a file's path, an array or tensor of bytes) goes through the model's own
image processor for evaluation; so does each picture of a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from lavis_lite.data.pictures import pictures_in
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.models.tensors import as_states, width_of
from lavis_lite.modules.output import Samples
from lavis_lite.modules.samples import as_samples, kind_of, needed
from lavis_lite.modules.vision_tokens import VisionTokens

_EXPECTED = (
    "(B, 3, H, W) is expected, red, green and blue of each pixel, as the image processor makes "
    'them of pictures: vis_processors["eval"](picture)[None], from load_model_and_preprocess or '
    "load_preprocess"
)


class TakesImages(Protocol):
    """A model that takes images; by its ``card`` and ``image_size`` it takes pictures."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...


class SeesImages(Protocol):
    """A model with a vision encoder."""

    visual_encoder: nn.Module


class EncodesImages(TakesImages, SeesImages, Protocol):
    """A model that makes tokens of images."""

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        ...


def images_of(samples: Samples, model: TakesImages, name: str = "image") -> Tensor:
    """Return the images of samples, on the model's device.

    Args:
        samples: ``name`` is whatever ``as_images`` takes.
        model: that takes them.
        name: of the images.

    Returns:
        (B, 3, H, W), floating point.

    Raises:
        ConfigError: no such images, or something that is neither images nor pictures.
        DataError: a picture that cannot be read.
    """
    return as_images(needed(samples, name), model, name).to(model.device)


def tokens_of(samples: Samples, model: EncodesImages) -> Tensor:
    """Return the tokens (B, N, D) of samples: ``image_tokens`` where they are known, or encoded.

    Raises:
        ConfigError: as of ``images_of``; tokens of another shape.
        DataError: as of ``images_of``.
    """
    known = as_samples(samples).get("image_tokens")
    if known is None:
        return model.encode_image(images_of(samples, model))
    return as_tokens(known, model, "image_tokens")


def as_tokens(tokens: Tensor, model: SeesImages, name: str = "image_tokens") -> Tensor:
    """Return the tokens of images as they are, (B, N, D) with the width D of the vision encoder.

    Raises:
        ConfigError: anything else.
    """
    return as_states(
        tokens, width_of(model.visual_encoder), name, "B, N, D", "`encode_image(image)`"
    )


def as_images(image: object, model: TakesImages, name: str = "image") -> Tensor:
    """Return images as a batch (B, 3, H, W), floating point.

    Args:
        image: (B, 3, H, W), or one (3, H, W), of a tensor or an array of floats; a picture; or a
            list of any of these, alike in size. Tokens (B, N, D) where the vision encoder is an
            ``nn.Identity``, or that are ``VisionTokens``.
        model: whose processor prepares pictures, by its ``card``.
        name: of the argument, for messages.

    Raises:
        ConfigError: neither images nor pictures, or pictures for a model without a processor.
        DataError: a picture that cannot be read.
    """
    if _is_batch(image):  # as nearly always: nothing is looked at twice
        return image
    if isinstance(image, VisionTokens):
        return as_states(
            image,
            width_of(getattr(model, "visual_encoder", None)),
            name,
            "B, N, D",
            "the model's vision encoder",
        )
    if isinstance(getattr(model, "visual_encoder", None), nn.Identity):
        return as_states(image, None, name, "B, N, D", "a vision encoder elsewhere")
    if isinstance(image, list | tuple):
        if not image:
            raise ConfigError(f"{name}: an empty list; at least one image")
        each = [as_images(one, model, f"{name}[{place}]") for place, one in enumerate(image)]
        if len(shapes := {tuple(one.shape[1:]) for one in each}) > 1:
            sizes = ", ".join(map(str, sorted(shapes)))
            raise ConfigError(f"{name}: a list of images of different sizes, {sizes}; {_EXPECTED}")
        return torch.cat([one.to(each[0]) for one in each])
    try:
        pictures = pictures_in(image)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if pictures is not None:
        process = _processor(model, image, name)
        return torch.stack([process(picture) for picture in pictures])
    tensor = image if isinstance(image, Tensor) else _tensor(image)
    if tensor is None:
        raise ConfigError(f"{name}: {kind_of(image)}; {_EXPECTED}")
    tensor = tensor[None] if tensor.ndim == 3 else tensor
    if tensor.ndim == 4 and not len(tensor):
        raise ConfigError(f"{name}: an empty batch, {tuple(tensor.shape)}; at least one image")
    if not _is_batch(tensor):
        raise ConfigError(f"{name}: {kind_of(image)}; {_EXPECTED}")
    return tensor


def _is_batch(image: object) -> TypeGuard[Tensor]:
    return (
        isinstance(image, Tensor)
        and image.ndim == 4
        and image.shape[1] == 3
        and image.shape[0] > 0
        and image.is_floating_point()
    )


def _tensor(array: object) -> Tensor | None:
    """An array of floats as a tensor, in fp32, as processors give it."""
    import numpy as np

    floats = isinstance(array, np.ndarray) and array.dtype.kind == "f"
    return torch.as_tensor(array, dtype=torch.float32) if floats else None


def _processor(model: TakesImages, image: object, name: str) -> Callable[..., Tensor]:
    from lavis_lite.models import zoo

    card = getattr(model, "card", None)
    processors = zoo.processors_of(card, getattr(model, "image_size", None))[0] if card else {}
    process = processors.get("eval", zoo.unprocessed)
    if process is zoo.unprocessed:
        raise ConfigError(f"{name}: {kind_of(image)}, for a model without a processor; {_EXPECTED}")
    return process
