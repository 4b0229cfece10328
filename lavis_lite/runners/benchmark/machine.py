"""The measured peak rate of this machine; the share of it that work reaches is its MFU."""

from __future__ import annotations

import time

import torch

from lavis_lite.runners.benchmark.timing import wait_for

_SECONDS = 0.5  # that the rate is looked for
# On a CPU small enough to be done before a busy machine turns to something else.
_SIZES = {"cpu": 512, "cuda": 8192}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate of one large matrix product, in operations per second.

    Two operations per multiply-add. With the threads that this process has; a machine that does
    other things meanwhile shows less than it could.
    """
    size = _SIZES.get(device.type, 2048)
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    best = float("inf")
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        wait_for(device)
        begin = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
