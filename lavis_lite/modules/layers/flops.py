"""Floating-point operations of whatever runs: loops, attention and backward passes included.

``lavis_lite.cli.sizes`` counts a module's forward pass with fvcore, which traces it. What is
measured here decides as it goes (a beam search) or computes gradients, which a trace does not
hold; so the operators are counted as they are dispatched. The two agree where both can count: a
test says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """What a run returns, and its operations: two per multiply-add of every matrix product.

    What compiled code, loader threads and other processes compute is not seen.
    """
    with FlopCounterMode(display=False, custom_mapping=_more()) as counter:
        result = run()
    return result, int(counter.get_total_flops())


def linear_operations(rows: torch.Size, weight: torch.Size, *rest: Any, **named: Any) -> int:
    """Of (..., D) rows times a matrix (width, D)."""
    return 2 * math.prod(rows) * weight[0]


def _more() -> dict[Any, Callable[..., int]]:
    """Operators of matrix products that torch's counter does not know."""
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return {onednn: linear_operations} if onednn is not None else {}
