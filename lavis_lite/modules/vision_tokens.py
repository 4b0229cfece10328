"""Tokens of a vision encoder in the place of the images that they were made of.

A frozen encoder gives the same tokens at every visit, so a run may keep them and hand them to the
model instead of pixels. ``vision.encode`` is where they pass: whatever a model does with an image
it does with them, and what follows the encoder (a norm that trains, projections) is computed.
"""

from __future__ import annotations

from torch import Tensor


class VisionTokens(Tensor):
    """(B, N, D) tokens where a model takes images (B, 3, H, W); ``of`` makes them."""

    @staticmethod
    def of(tokens: Tensor) -> VisionTokens:
        """The same numbers, marked as tokens."""
        return tokens.as_subclass(VisionTokens)

    def plain(self) -> Tensor:
        """The same numbers as an ordinary tensor."""
        return self.as_subclass(Tensor)
