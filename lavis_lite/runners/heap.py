"""Memory that stays with the process: freed blocks are reused, not handed back to the system.

glibc returns large blocks to the system whenever they are freed, and a tensor's next block is then
mapped and zeroed page by page again. On virtual machines that can take longer than the arithmetic:
more than half of the time of a convolutional encoder (docs/performance.rst has the rows).
"""

from __future__ import annotations

import ctypes
import os
import sys

SWITCH = "LAVIS_LITE_KEEP_MEMORY"
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
_LARGEST = 2**31 - 1  # mallopt takes an int
_OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def keep_freed_memory(wanted: bool = True) -> bool:
    """Let this process keep the memory that it frees, for its next tensors. Cannot be undone.

    The cost: the process holds the most memory that it ever needed until it ends. Nothing is
    changed where another allocator is at work, where the user tunes glibc's (``GLIBC_TUNABLES``,
    ``MALLOC_*_``), or where the environment variable ``LAVIS_LITE_KEEP_MEMORY`` is 0.

    Args:
        wanted: ``run.keep_memory`` of a config; the environment variable is stronger.

    Returns:
        True if freed memory now stays.
    """
    wanted = os.environ.get(SWITCH, "1" if wanted else "0").strip().lower() not in ("0", "false")
    if not wanted or not _is_glibc() or _is_tuned_by_the_user():
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(key, _LARGEST) for key in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))


def _is_glibc() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    preloaded = os.environ.get("LD_PRELOAD", "")
    if any(name in preloaded for name in _OTHER_ALLOCATORS):
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (ValueError, OSError):  # musl knows no such name
        return False


def _is_tuned_by_the_user() -> bool:
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return True
    return any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"))
