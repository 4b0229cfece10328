"""Rights of files, that count for root too."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER = 1, 2, 3


@contextlib.contextmanager
def permissions_count() -> Iterator[None]:
    """Within it this thread may do what a file's mode says, and no more, also as root."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the current version, this thread
    data = (ctypes.c_uint32 * 6)()  # twice effective, permitted, inheritable
    assert libc.capget(header, data) == 0, os.strerror(ctypes.get_errno())
    before = data[0]
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER):
        data[0] &= ~(1 << capability)
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        data[0] = before
        assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())
