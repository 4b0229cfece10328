"""The state of a step, on which ramps and random draws depend beside the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepInfo:
    """The state of a training step, handed to ``model(samples, step_info)`` beside the batch.

    Args:
        progress: completed fraction of the run in [0, 1], by which ramps grow; 1 outside a run, so
            that ramps count as finished.
        step: optimizer steps done before this one.
        micro_step: number of the micro-batch within the step, from 0.
        seed: the run's seed.
    """

    progress: float = 1.0
    step: int = 0
    micro_step: int = 0
    seed: int = 0

    def ramped(self, value: float, ramp: float) -> float:
        """Return a value that grows linearly from 0 over the first ``ramp`` of the run."""
        return value * min(1.0, self.progress / ramp if ramp else 1.0)

    @classmethod
    def of(cls, samples: Mapping[str, Any]) -> StepInfo:
        """Read the state from a batch whose caller put it there (``model({..., "step": 3})``).

        Such keys are how loops written by hand tell a model where they are; the runner passes a
        StepInfo. Keys that are missing take their defaults.
        """
        return cls(
            progress=float(samples.get("progress", 1.0)),
            step=int(samples.get("step", 0)),
            micro_step=int(samples.get("micro_step", 0)),
            seed=int(samples.get("seed", 0)),
        )
