"""One vector per text: which of its states speaks for it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Pooling = Literal["first", "last", "mean"]


def pool(backbone: nn.Module, states: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T, D) -> (B, D) by the backbone's own ``pool``, else the first token's state.

    Args:
        backbone: a text backbone.
        states: its output.
        mask: (B, T) 1 for real tokens, padding on the right; None when all are real.
    """
    own = getattr(backbone, "pool", None)
    return own(states, mask) if callable(own) else pool_states(states, mask, "first")


def pool_states(states: Tensor, mask: Tensor | None, how: Pooling) -> Tensor:
    """(B, T, D) -> (B, D): the state of the first or the last real token, or the mean of all real.

    Args:
        states: of B texts.
        mask: (B, T) 1 for real tokens, padding on the right; None when all are real.
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
