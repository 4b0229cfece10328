"""What every ALBEF model reads besides its own weights, and how its texts start."""

from __future__ import annotations

from torch import Tensor

from lavis_lite.projects.albef.convert import adapt


class Formats:
    """Weights of salesforce/ALBEF and LAVIS in; a vocabulary without tokens beyond BERT's."""

    added_tokens: tuple[str, ...] = ()  # `[CLS]` starts every text, read or written

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights in any published ALBEF layout, in this model's names and sizes."""
        return adapt(self, weights)
