"""The published layouts that every dual encoder reads."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lavis_lite.models.formats import Formats
from lavis_lite.projects.clip import config_check
from lavis_lite.projects.clip.convert import adapt
from lavis_lite.projects.clip.names import renamed


class ClipFormats(Formats):
    """Weights of OpenAI, Perception Encoder, open_clip and transformers in."""

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of OpenAI, open_clip or transformers under our keys; others as they are."""
        return renamed(weights)

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights without what training leaves in a file, resampled to the model's image size."""
        return adapt(model, weights)

    def check_config(self, model: nn.Module, config: Mapping[str, object], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        config_check.check(model, config, source)
