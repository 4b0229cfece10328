"""The most memory that a run holds above what stood before it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak(NamedTuple):
    """MiB: what a run added at its highest, and all that the process held then.

    On an accelerator both are memory of the device.
    """

    growth: float
    total: float


def peak_of(run: Callable[[], object], device: torch.device) -> Peak:
    """Run something and watch its memory.

    A first call of the same work belongs before this one: what it loads, keeps and allocates once
    and for all is none of a run's. On a CPU the process should do nothing else, and should be a
    fresh one where the system cannot forget an earlier peak.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        highest = torch.cuda.max_memory_allocated(device)
    else:
        return_freed()
        before = resident()
        forget_peak()
        run()
        highest = highest_resident()
    return Peak(max(0, highest - before) / MIB, highest / MIB)


def return_freed() -> None:
    """Give memory that is free, but kept for later, back to system and device, if that can be."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def forget_peak() -> None:
    """Reset the peak of the resident size, if the system supports it."""
    with contextlib.suppress(OSError):  # not there or not allowed: the peak of the process stands
        _CLEAR.write_text("5")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return _status("VmRSS") or _since_start()


def highest_resident() -> int:
    """The most bytes of this process in memory since it began, or since ``forget_peak``."""
    return _status("VmHWM") or _since_start()


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes; 0 where there is none."""
    if not _STATUS.is_file():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _since_start() -> int:
    """Bytes; Linux counts in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
