"""The exponential moving average (EMA) of momentum towers and of a run's weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def momentum_update(online: Iterable[Tensor], average: Iterable[Tensor], decay: float) -> None:
    """Set ``average = decay * average + (1 - decay) * online``, in place, for all tensors at once.

    Reference: MoCo, https://arxiv.org/abs/1911.05722, eq. 2.
    """
    targets = [local(p.data) for p in average]
    sources = [local(p.data) for p in online]
    assert len(targets) == len(sources)
    torch._foreach_mul_(targets, decay)
    torch._foreach_add_(targets, sources, alpha=1.0 - decay)


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor that FSDP divided; any other tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
