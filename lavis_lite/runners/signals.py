"""Stopping in good order: SIGTERM and Ctrl-C end a run after the step, with everything saved."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger(__name__)


class StopSignals:
    """A context that notes a first signal in ``received``; a second one exits at once.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}
        self._owner = os.getpid()
        self._at_once = False

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a forked loader process; its parent decides
            return
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        name = signal.Signals(number).name
        if self._at_once:
            log.warning("%s: stops here", name)
            raise self.exit()
        log.warning("%s: finishes this step, saves and stops; again to stop at once", name)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise at once in this context, because no step has to finish."""
        if self.received is not None:
            raise self.exit()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def exit(self) -> SystemExit:
        """Return what to raise to stop: the exit code is 128 plus the signal, 143 or 130."""
        # Another process of the run may have been the one that the signal reached.
        return SystemExit(128 + (self.received or signal.SIGTERM))
