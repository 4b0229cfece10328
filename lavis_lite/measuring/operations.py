"""Floating-point operations of whatever runs: loops, attention and backward passes included.

``lavis_lite.sizes`` counts a module's forward pass with fvcore, which traces it. What is measured
here decides as it goes (a beam search) or computes gradients, which a trace does not hold; so the
operators are counted as they are dispatched. The two agree where both can count: a test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """What a run returns, and its operations: two per multiply-add of every matrix product.

    What compiled code, loader threads and other processes compute is not seen.
    """
    with FlopCounterMode(display=False) as counter:
        result = run()
    return result, int(counter.get_total_flops())
