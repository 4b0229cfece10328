"""Interleaved timing of several implementations of the same work."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

Run = Callable[[], object]


@dataclass
class Seconds:
    """Wall-clock seconds of each run, and what the processor computed meanwhile.

    ``cpu`` counts all threads of this process and none of its children.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the wall-clock seconds."""
        return statistics.median(self.wall)

    @property
    def spread(self) -> float:
        """Standard deviation of the sample; 0 of a single run."""
        return statistics.stdev(self.wall) if len(self.wall) > 1 else 0.0


def in_turns(
    runs: Mapping[str, Run], repeats: int, warmup: int, device: torch.device
) -> dict[str, Seconds]:
    """Time each run, A B A B, so that other load on the machine affects all of them alike.

    Args:
        runs: name -> what is timed.
        repeats: timed runs of each, at least 1.
        warmup: runs of each before them that do not count.
        device: what is waited for at the end of a run.
    """
    for _ in range(warmup):
        for run in runs.values():
            run()
    seconds = {name: Seconds() for name in runs}
    gc.collect()
    gc.freeze()  # so that looking for garbage before each run is looking at little
    try:
        for _ in range(repeats):
            for name, run in runs.items():
                gc.collect()
                wait_for(device)
                begin, begin_cpu = time.perf_counter(), time.process_time()
                run()
                wait_for(device)
                seconds[name].wall.append(time.perf_counter() - begin)
                seconds[name].cpu.append(time.process_time() - begin_cpu)
    finally:
        gc.unfreeze()
    return seconds


def wait_for(device: torch.device) -> None:
    """Return when a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
