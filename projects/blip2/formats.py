"""The published layouts that models of the first stage read."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from lavis_lite.models.formats import Formats
from lavis_lite.projects.blip2 import convert

if TYPE_CHECKING:
    from lavis_lite.projects.blip2.model import Blip2Qformer


class Blip2Formats(Formats):
    """Weights of LAVIS in."""

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of LAVIS under our keys; others as they are."""
        return convert.rename(weights)

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of the first stage in the sizes of the model."""
        return convert.adapt(cast("Blip2Qformer", model), weights)
