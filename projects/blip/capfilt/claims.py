"""Claims of shards by workers, on one machine or many that share files: locks on files.

A lock goes when its process does, however that ends, so that nothing is ever left locked.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_lite.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: only the executor `serial` is safe there
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock on a file, which is made.

    Args:
        path: of the lock's own file.
        wait: until whoever holds it is done; else yield False at once.

    Raises:
        ConfigError: the file system has no locks.
    """
    with open(path, "a", encoding="utf-8") as file:
        yield _acquire(file.fileno(), path, wait)  # closing the file gives the lock back


def _acquire(descriptor: int, path: Path, wait: bool) -> bool:
    if fcntl is None:
        return True
    try:
        # lockf, not flock: a forked loader process must not keep a killed worker's lock alive.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise ConfigError(
            f"run.output_dir: {path.parent} is on a file system without locks "
            f"({os.strerror(error.errno or 0)}); choose one that has them (local disks, NFS 4)"
        ) from None
    return True
