"""Learned position embeddings of image patches, resampled to other image sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


def interpolate_pos_embed(
    weight: Tensor,
    num_tokens: int,
    num_prefix_tokens: int = 1,
    grid: tuple[int, int] | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Resample position embeddings to another number of patches, as BLIP does.

    Args:
        weight: (1, P + N, D), P prefix tokens and a square grid of N patches.
        num_tokens: P + N', the new number of tokens.
        grid: rows and columns of the N' patches; a square unless given.
        align_corners: the corner patches keep their embeddings, as in the CLIP towers of LAVIS.

    Returns:
        (1, P + N', D): prefix kept, the grid resampled (bicubic, no antialiasing); the unchanged
        weight if its grid is not square or N' does not fill ``grid``.

    Reference: BLIP's ``interpolate_pos_embed``, https://arxiv.org/abs/2201.12086.
    """
    prefix, patches = weight[:, :num_prefix_tokens], weight[:, num_prefix_tokens:]
    old = math.isqrt(patches.shape[1])
    side = math.isqrt(num_tokens - num_prefix_tokens)
    new = (side, side) if grid is None else grid
    fit = (old * old, math.prod(new)) == (patches.shape[1], num_tokens - num_prefix_tokens)
    if (old, old) == new or not fit:
        return weight
    square = patches.reshape(1, old, old, -1).permute(0, 3, 1, 2).float()  # (1, D, old, old)
    resampled = nn.functional.interpolate(
        square, size=new, mode="bicubic", align_corners=align_corners
    )
    flat = resampled.permute(0, 2, 3, 1).flatten(1, 2).to(weight.dtype)  # (1, N', D)
    return torch.cat([prefix, flat], dim=1)  # (1, P + N', D)


def resampler(
    model: nn.Module, num_prefix_tokens: int, align_corners: bool
) -> Callable[[Tensor], Tensor]:
    """Return a function that fits position embeddings (1, N, D) to a timm model, unsmoothed."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)

    def resample(weight: Tensor) -> Tensor:
        num_tokens = cast(Tensor, model.pos_embed).shape[1]
        return interpolate_pos_embed(weight, num_tokens, num_prefix_tokens, grid, align_corners)

    return resample
