"""The published layouts that models of the first stage read and write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from lavis_lite.models.formats import Formats
from lavis_lite.projects.blip2 import convert, huggingface_retrieval
from lavis_lite.projects.blip2.huggingface_retrieval import FirstStage


class Blip2Formats(Formats):
    """Weights of LAVIS and transformers in, folders for transformers out."""

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of LAVIS or transformers under our keys; others as they are."""
        return convert.rename(weights)

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the first stage in the sizes of the model."""
        return convert.adapt(cast(FirstStage, model), weights)

    def check_config(self, model: nn.Module, config: Mapping[str, object], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        huggingface_retrieval.check_config(cast(FirstStage, model), config, source)

    def save_transformers(self, model: nn.Module, folder: str | Path) -> Path:
        """Write the model as a folder that transformers' ``from_pretrained`` reads.

        Raises:
            ConfigError: transformers has no such model.
        """
        return huggingface_retrieval.save(cast(FirstStage, model), folder)
