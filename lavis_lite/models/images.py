"""The images of a batch as a model takes them, or an error that says what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.modules.output import Samples

_PROCESS = (
    "a model takes what its image processor makes of a picture: "
    'vis_processors["eval"](picture)[None], from load_model_and_preprocess or load_preprocess'
)


def images_of(samples: Samples, device: torch.device, name: str = "image") -> Tensor:
    """The images of samples on a device.

    Args:
        samples: ``name`` is (B, 3, H, W), also one (3, H, W) or a list of those, alike in size.
        device: of the model.
        name: of the images.

    Returns:
        (B, 3, H, W), floating point.

    Raises:
        ConfigError: no such images, or something that is no batch of processed ones.
    """
    if not isinstance(samples, dict) and not hasattr(samples, "get"):
        raise ConfigError(f"samples: a dict with {name!r} is expected, not {_kind(samples)}")
    image = samples.get(name)
    if image is None:
        raise ConfigError(
            f"samples have no {name!r}.{suggest(name, samples)} They have: {', '.join(samples)}"
        )
    image = _batch(image, name)
    if image.ndim != 4 or image.shape[1] != 3:
        raise ConfigError(
            f"{name}: {tuple(image.shape)}; (B, 3, H, W) is expected: red, green and blue of each "
            f"pixel. {_PROCESS}"
        )
    if not len(image):
        raise ConfigError(f"{name}: an empty batch, {tuple(image.shape)}; at least one image")
    if not image.is_floating_point():
        raise ConfigError(f"{name}: {image.dtype} pixels, not yet normalised; {_PROCESS}")
    return image.to(device)


def _batch(image: Any, name: str) -> Tensor:
    if isinstance(image, Sequence) and not isinstance(image, str | bytes):
        if not image:
            raise ConfigError(f"{name}: an empty list; at least one image")
        wrong = next((one for one in image if not isinstance(one, Tensor)), None)
        if wrong is not None:
            raise ConfigError(f"{name}: a list with {_kind(wrong)} in it; {_PROCESS}")
        shapes = {tuple(one.shape) for one in image}
        if len(shapes) > 1:
            listed = ", ".join(map(str, sorted(shapes)))
            raise ConfigError(f"{name}: a list of images of different sizes, {listed}; {_PROCESS}")
        return torch.stack(list(image)) if image[0].ndim == 3 else torch.cat(list(image))
    if not isinstance(image, Tensor):
        raise ConfigError(f"{name}: {_kind(image)}; {_PROCESS}")
    return image[None] if image.ndim == 3 else image


def _kind(value: object) -> str:
    what = "a path" if isinstance(value, str | PurePath) else f"a {type(value).__name__}"
    return f"{what} ({value!r:.60})" if isinstance(value, str | PurePath | int | float) else what
