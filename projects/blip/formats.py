"""The published layouts that every BLIP model reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lavis_lite.models.formats import Formats
from lavis_lite.projects.blip import huggingface
from lavis_lite.projects.blip.convert import adapt
from lavis_lite.projects.blip.names import from_transformers


class BlipFormats(Formats):
    """Weights of salesforce/BLIP, LAVIS and transformers in, folders for transformers out."""

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of transformers' BLIP under published keys; others as they are."""
        return {from_transformers(key): tensor for key, tensor in weights.items()}

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in any published BLIP layout, in the model's names and sizes."""
        return adapt(model, weights)

    def check_config(self, model: nn.Module, config: Mapping[str, object], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        huggingface.check_config(model, config, source)

    def save_transformers(self, model: nn.Module, folder: str | Path) -> Path:
        """Write the model as a folder that transformers' ``from_pretrained`` reads.

        Raises:
            ConfigError: transformers has no such model.
        """
        return huggingface.save(model, folder)
