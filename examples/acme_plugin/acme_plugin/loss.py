"""A loss over what a step's shared view offers."""

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.losses.shared import Shared
from lavis_lite.modules.interfaces import Embeds, Tokenizes


@registry.register("loss", "acme_plugin_margin")
class Margin(nn.Module):
    """Hinge loss of each pair against the hardest other one.

    Args:
        margin: how much more similar a pair must be than its hardest rival.

    Reference: VSE++, https://arxiv.org/abs/1707.05612, eq. 6.
    """

    requires = (Embeds, Tokenizes)

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, shared: Shared) -> Tensor:
        """() mean over the pairs and both directions."""
        sims = shared.image_features @ shared.text_features.T  # (B, B)
        own = torch.eye(len(sims), dtype=torch.bool, device=sims.device)
        rivals = sims.masked_fill(own, -2)
        to_text = (self.margin + rivals.amax(1) - sims.diag()).relu()
        to_image = (self.margin + rivals.amax(0) - sims.diag()).relu()
        return (to_text + to_image).mean()
