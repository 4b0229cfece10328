"""Adaptation of weights under our keys to a model: its image size, and only its tensors."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from lavis_lite.modules import vision

log = logging.getLogger(__name__)

# Numbers that OpenAI's files hold beside the weights.
_SETTINGS = ("input_resolution", "context_length", "vocab_size")
_BIAS = "logit_bias"
_IMAGE_BIAS = "vision_proj.bias"


def adapt(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapt the weights of a file to this model.

    Position embeddings are resampled to the image size. The bias of the sigmoid loss is dropped if
    the model has none, and stays as initialised if the file has none (`siglip` from CLIP's
    weights). The bias of timm's heads is dropped where it is zero and the projection has none.
    """
    initial = model.state_dict()
    kept = {key: tensor for key, tensor in weights.items() if key not in _SETTINGS}
    if _BIAS not in initial:
        kept.pop(_BIAS, None)
    elif _BIAS not in kept and "logit_scale" in kept:
        log.warning(
            "the weights have no logit_bias: it starts anew, at %.4g", initial[_BIAS].item()
        )
        kept[_BIAS] = initial[_BIAS]
    if _IMAGE_BIAS not in initial and _IMAGE_BIAS in kept and not kept[_IMAGE_BIAS].any():
        del kept[_IMAGE_BIAS]
    num_prefix_tokens = {
        "visual_encoder.pos_embed": getattr(model.visual_encoder, "num_prefix_tokens", 0),
        "visual_encoder.head.pos_embed": 1,  # the mean, the query of CLIP's attention pool
    }
    for key, num_prefix in num_prefix_tokens.items():
        if key in kept and key in initial:
            grid = vision.grid_of(model.visual_encoder)
            kept[key] = resampled(kept[key], initial[key], num_prefix, grid)
    return kept


def resampled(
    weight: Tensor, like: Tensor, num_prefix_tokens: int, grid: vision.Grid | None
) -> Tensor:
    """Resample position embeddings, (1, N, D) or (N, D), to the number of patches of ``like``."""
    rows = weight.reshape(1, *weight.shape[-2:])  # (1, N, D)
    resized = vision.interpolate_pos_embed(rows, like.shape[-2], num_prefix_tokens, grid)
    return resized.reshape(*weight.shape[:-2], *resized.shape[-2:])
