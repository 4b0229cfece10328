"""The published layouts that every ALBEF model reads, and how its texts start."""

from __future__ import annotations

from torch import Tensor, nn

from lavis_lite.models.formats import Formats
from lavis_lite.projects.albef.convert import adapt

ADDED_TOKENS = ()  # none beyond BERT's: `[CLS]` starts every text, read or written


class AlbefFormats(Formats):
    """Weights of salesforce/ALBEF and LAVIS in."""

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in any published ALBEF layout, in the model's names and sizes."""
        return adapt(model, weights)
