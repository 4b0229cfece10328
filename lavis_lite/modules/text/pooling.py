"""Pooling of token states to one vector per text."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["first", "last", "mean"]


def pool(backbone: nn.Module, states: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pool (B, T, D) to (B, D) by the backbone's own ``pool``, else take the first token.

    Args:
        backbone: a text backbone.
        states: its output.
        mask: (B, T) 1 for real tokens, padding on the right; None if all are real.
    """
    method = getattr(backbone, "pool", None)
    return method(states, mask) if callable(method) else pool_states(states, mask, "first")


def pool_states(states: Tensor, mask: Tensor | None, how: Pooling) -> Tensor:
    """Pool (B, T, D) to (B, D): the first or last real token, or the mean of all real tokens.

    Args:
        states: states of B texts.
        mask: (B, T) 1 for real tokens, padding on the right; None if all are real.
        how: ``first`` for encoders that start with a class token, ``last`` for causal towers, in
            which only the last token has seen the text, ``mean`` for those with neither.
    """
    if how == "first":
        return states[:, 0]
    if mask is None:
        return states[:, -1] if how == "last" else states.mean(dim=1)
    if how == "last":
        last = mask.long().sum(dim=1).clamp(min=1) - 1  # (B,)
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.to(states.dtype)[..., None]  # (B, T, 1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
