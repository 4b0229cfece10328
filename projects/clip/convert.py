"""Weights under our keys -> those that a model takes: of its image size, and nothing else."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from lavis_lite.modules import vision

log = logging.getLogger(__name__)

# Numbers that OpenAI's files carry beside the weights.
_SETTINGS = ("input_resolution", "context_length", "vocab_size")
_BIAS = "logit_bias"


def adapt(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file for this model.

    Position embeddings are resampled to the image size. The bias of the sigmoid loss is left out
    where the model has none, and starts anew where the file has none (`siglip` from CLIP's
    weights).
    """
    own = model.state_dict()
    kept = {key: tensor for key, tensor in weights.items() if key not in _SETTINGS}
    if _BIAS not in own:
        kept.pop(_BIAS, None)
    elif _BIAS not in kept and "logit_scale" in kept:
        log.warning("the weights have no logit_bias: it starts anew, at %.4g", own[_BIAS].item())
        kept[_BIAS] = own[_BIAS]
    num_prefix_tokens = {
        "visual_encoder.pos_embed": getattr(model.visual_encoder, "num_prefix_tokens", 0),
        "visual_encoder.head.pos_embed": 1,  # the mean, at which CLIP's ResNets are read
    }
    for key, num_prefix in num_prefix_tokens.items():
        if key in kept and key in own:
            grid = vision.grid_of(model.visual_encoder)
            kept[key] = resampled(kept[key], own[key], num_prefix, grid)
    return kept


def resampled(
    weight: Tensor, wanted: Tensor, num_prefix_tokens: int, grid: vision.Grid | None
) -> Tensor:
    """Position embeddings, (1, N, D) or (N, D), for another number of patches."""
    rows = weight.reshape(1, *weight.shape[-2:])
    found = vision.interpolate_pos_embed(rows, wanted.shape[-2], num_prefix_tokens, grid)
    return found.reshape(*weight.shape[:-2], *found.shape[-2:])
