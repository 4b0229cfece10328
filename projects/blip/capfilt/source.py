"""Rows as a shard reads them: decoded once, prepared for each model, nothing lost."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.data.files import images
from lavis_lite.errors import DataError
from lavis_lite.modules.interfaces import RowDataset

_OWN = ("image", "text_input", "image_id", "key")


class Source:
    """A dataset whose further fields travel as one.

    Args:
        rows: the dataset.
        keep_bytes: also hand out each image's file, as ``file``.
    """

    def __init__(self, rows: RowDataset, keep_bytes: bool) -> None:
        self.rows = rows
        self.name = getattr(rows, "name", "dataset")
        self.keep_bytes = keep_bytes
        self.decode = getattr(rows, "decode", images.decode)

    def __len__(self) -> int:
        return len(self.rows)

    def annotation(self, index: int) -> dict[str, Any]:
        """A row without its image, where the dataset offers that."""
        return getattr(self.rows, "annotation", self.rows.__getitem__)(index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        image = row["image"]
        record = {
            "path": image if isinstance(image, str) else None,
            "image_id": row["image_id"],
            "fields": {k: v for k, v in row.items() if k not in _OWN and _is_plain(v)},
        }
        if self.keep_bytes:
            image = record["file"] = _file_of(image)
        return {
            "image": image,
            "text_input": str(row["text_input"]),
            "image_id": row["image_id"],
            "key": row["key"],
            "record": record,
        }


def as_it_is(text: str, rng: object = None) -> str:
    """A text unprocessed: records have it as the source does."""
    return text


def _is_plain(value: object) -> bool:
    """Tell whether JSON can hold a value."""
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(one) for k, one in value.items())
    return value is None or isinstance(value, str | int | float)


def _file_of(image: bytes | str | Image.Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    try:
        with open(image, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(f"missing file: {image}") from None


class PrepareImages:
    """The image processors of several models as one, so that each image is decoded once.

    Called with an image it gives one flat tensor with the input of all models, models with equal
    processors sharing theirs; ``split`` takes a batch of them apart.

    Args:
        spec: the processor's component.
        models: name -> model; ``image_size``, ``image_mean`` and ``image_std``, where it has them,
            are what the processor uses unless ``spec`` says otherwise.
    """

    def __init__(self, spec: Mapping[str, Any], models: Mapping[str, nn.Module]) -> None:
        self.parts: dict[str, int] = {}
        self.processors: list[Any] = []
        self.shapes: list[torch.Size] = []
        seen: list[dict[str, Any]] = []
        blank = Image.new("RGB", (8, 8))
        for name, model in models.items():
            runtime = runtime_of(model)
            if runtime not in seen:
                seen.append(runtime)
                self.processors.append(registry.build("processor", spec, **runtime))
                self.shapes.append(self.processors[-1](blank).shape)
            self.parts[name] = seen.index(runtime)

    def __call__(self, image: Image.Image, rng: numpy.random.Generator | None = None) -> Tensor:
        if not self.processors:  # nothing that runs reads pixels
            return torch.empty(0)
        return torch.cat([process(image, rng).flatten() for process in self.processors])

    def split(self, batch: Tensor) -> dict[str, Tensor]:
        """(B, all) -> each model's (B, 3, H, W)."""
        if not self.parts:
            return {}
        pieces = batch.split([shape.numel() for shape in self.shapes], dim=1)
        return {
            name: pieces[part].reshape(-1, *self.shapes[part]) for name, part in self.parts.items()
        }


def runtime_of(model: nn.Module) -> dict[str, Any]:
    """The arguments that a model brings to its image processor."""
    names = {"image_size": "image_size", "mean": "image_mean", "std": "image_std"}
    return {
        argument: getattr(model, attribute)
        for argument, attribute in names.items()
        if getattr(model, attribute, None) is not None
    }
