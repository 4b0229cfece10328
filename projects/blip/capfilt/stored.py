"""Tokens of the models' vision encoders in place of pixels: computed once, whoever asks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.stored_images import StoredImages
from lavis_lite.errors import ConfigError
from lavis_lite.models.frozen_vision import describe, vision_encoder
from lavis_lite.modules.vision_tokens import VisionTokens
from lavis_lite.projects.blip.capfilt.config import SourceConfig
from lavis_lite.projects.blip.capfilt.score_config import ScoreDataConfig
from lavis_lite.projects.blip.capfilt.source import PrepareImages, Source, as_it_is, runtime_of
from lavis_lite.runners.precision import Precision
from lavis_lite.runners.vision_tokens import KeptTokens


class StoredTokens:
    """Rows with the tokens of several models in the place of an image.

    A sample has one flat tensor with the tokens of all models, models with equal encoders and
    processors sharing theirs; ``split`` takes a batch of them apart.

    Args:
        source: the rows.
        images: of each distinct encoder.
        parts: part of the run -> the place of its encoder among ``images``.
    """

    crops = 1

    def __init__(
        self, source: Source, images: Sequence[StoredImages], parts: Mapping[str, int]
    ) -> None:
        self.source, self.images, self.parts = source, images, parts

    def row(self, dataset: int, index: int) -> dict[str, Any]:
        """A row with its number in the place of its image.

        Raises:
            DataError: the row, or its image, cannot be read.
        """
        for images in self.images:
            images.place(dataset, index, "image")
        return {**self.source[index], "image": index}

    def tokens(self, place: int, crop: int) -> Tensor:
        """All tokens of a row's image, one after the other.

        Raises:
            DataError: the image could not be read when its tokens were to be computed.
        """
        found = [images.tokens(images.place(0, place, "image"), crop) for images in self.images]
        return torch.cat([one.as_subclass(Tensor).flatten() for one in found])

    def split(self, batch: Tensor) -> dict[str, Tensor]:
        """(B, all) -> each part's tokens (B, N, D)."""
        shapes = [images.shape for images in self.images]
        pieces = batch.split([shape.numel() for shape in shapes], dim=1)
        return {
            part: VisionTokens.of(pieces[number].reshape(-1, *shapes[number]))
            for part, number in self.parts.items()
        }


def keep_tokens(
    models: Mapping[str, nn.Module],
    source: Source,
    data: SourceConfig | ScoreDataConfig,
    precision: Precision,
) -> StoredTokens | None:
    """Compute the tokens that are missing, beside other workers; None where no model reads pixels.

    Args:
        models: part of the run -> model, with the weights as they were loaded.
        source: the rows.
        data: with ``vision_tokens``, whose folder has one for each model.
        precision: of the encoders' forward passes, and the device.

    Raises:
        ConfigError: several crops, a model without a vision encoder, or a folder with tokens of
            another kind.
    """
    assert data.vision_tokens is not None
    if data.vision_tokens.crops != 1:
        raise ConfigError(
            f"data.vision_tokens.crops: {data.vision_tokens.crops}; texts are written about whole "
            "images: leave it at 1"
        )
    images: list[StoredImages] = []
    parts: dict[str, int] = {}
    seen: list[dict[str, Any]] = []
    for part, model in models.items():
        runtime = runtime_of(model)
        own = {**describe(vision_encoder(model)), **runtime}
        if own not in seen:
            seen.append(own)
            kept = KeptTokens(
                data.vision_tokens,
                model,
                precision,
                batch_size=data.batch_size,
                num_workers=data.num_workers,
            )
            images.append(kept.images(part.replace(" ", "_"), [source], data.image.spec, runtime))
            kept.fill()
        parts[part] = seen.index(own)
    return StoredTokens(source, images, parts) if parts else None


def batches_of(
    source: Source,
    prepare: PrepareImages | StoredTokens,
    data: SourceConfig | ScoreDataConfig,
    quarantine: Any,
) -> EvalData:
    """The rows in batches, with pixels or stored tokens as ``prepare`` splits them.

    Args:
        source: the rows.
        prepare: makes or reads what the models take.
        data: with the size of batches, and the processes that read.
        quarantine: takes what cannot be read.
    """
    stored = prepare if isinstance(prepare, StoredTokens) else None
    image = as_it_is if isinstance(prepare, StoredTokens) else prepare
    return EvalData(
        source,
        Processors(image=image, text=as_it_is),
        batch_size=data.batch_size,
        num_workers=data.num_workers,
        quarantine=quarantine,
        stored=stored,
    )
