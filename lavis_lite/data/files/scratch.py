"""A folder to work in that a killed process does not leave for ever."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, nobody can tell whose a folder still is
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, removed in the end with whatever is in it.

    A process that works in one holds its lock, which the system drops when the process ends.
    Folders of this prefix that nobody holds, as one leaves that is killed, are removed first. Where
    the file system has no locks they stay.

    Args:
        parent: where it is made.
        prefix: of its name; nothing else in ``parent`` begins like it.

    Raises:
        OSError: nothing can be made in ``parent``.
    """
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as alone:
            # So that nobody takes the new folder for one that is left, before it is locked.
            if _hold(alone, parent, wait=True):
                _remove_left(parent, prefix)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            _hold(held, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_left(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with contextlib.ExitStack() as held:
            if folder.is_dir() and not folder.is_symlink() and _hold(held, folder):
                log.info("%s: removed, a process that was killed left it", folder)
                shutil.rmtree(folder, ignore_errors=True)


def _hold(held: contextlib.ExitStack, folder: Path, wait: bool = False) -> bool:
    """Lock a folder until ``held`` is closed; False where another has it, or there are no locks."""
    if fcntl is None:
        return False
    try:
        handle = os.open(folder, os.O_RDONLY)
        held.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
