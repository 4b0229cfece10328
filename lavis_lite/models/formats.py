"""Layouts of weights other than our own: how a model takes them up, and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from lavis_lite.errors import ConfigError


class Formats:
    """The layouts that a model knows; these are none but its own.

    A project derives one class and names it as ``formats`` in each of its models.
    """

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of other libraries under published keys; others as they are."""
        return weights

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in any published layout, in the names and sizes of ``model``."""
        return weights

    def check_config(self, model: nn.Module, config: Mapping[str, object], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""

    def save_transformers(self, model: nn.Module, folder: str | Path) -> Path:
        """Write ``model`` as a folder that transformers' ``from_pretrained`` reads.

        Raises:
            ConfigError: transformers has no such model.
        """
        raise ConfigError(f"{type(model).__name__}: this model cannot be written as transformers")
