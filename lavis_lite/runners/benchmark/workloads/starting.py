"""Commands from start to end: the time that a user waits before anything happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import lavis_lite
from lavis_lite import registry
from lavis_lite.runners.benchmark.agreement import Difference


@registry.register("workload", "command")
class Command:
    """A command of Python in a process of its own, beside an interpreter that does nothing.

    Args:
        arguments: what follows ``python``.
        device, precision: of no effect.
    """

    arithmetic = False
    unit = "starts"
    amount = 1
    baselines = ("bare interpreter",)

    def __init__(
        self,
        arguments: list[str],
        *,
        device: torch.device | None = None,
        precision: str = "fp32",
    ) -> None:
        self.arguments = arguments
        root = str(Path(lavis_lite.__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def contender(self, name: str) -> Callable[[], int]:
        """Each returns the exit code."""
        arguments = self.arguments if name == "ours" else ["-c", "pass"]

        def run() -> int:
            done = subprocess.run(
                [sys.executable, *arguments], env=self.environment, stdout=subprocess.DEVNULL
            )
            return done.returncode

        return run

    def differences(self, baseline: str, ours: int, theirs: int) -> list[Difference]:
        """Both have to end well."""
        return [Difference("exit code", max(abs(ours), abs(theirs)), 0)]
