"""A vision backbone: images (B, 3, H, W) to tokens (B, N, D), and its width D."""

from torch import Tensor, nn

from lavis_lite import registry


@registry.register("vision_encoder", "acme_plugin_patchnet")
class PatchNet(nn.Module):
    """Patches through one linear layer and an MLP.

    Args:
        width: D of the tokens.
        patch_size: side of a patch in pixels.
    """

    def __init__(self, width: int = 64, patch_size: int = 16) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D)."""
        tokens = self.patches(image).flatten(2).transpose(1, 2)  # (B, N, D)
        return tokens + self.mlp(tokens)
