"""The state of a step, on which ramps and random draws depend beside the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lavis_lite.errors import ConfigError


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

        Raises:
            ConfigError: one that is no number.
        """
        found = {field.name: samples[field.name] for field in fields(cls) if field.name in samples}
        try:
            return cls(**{name: type(getattr(cls, name))(found[name]) for name in found})
        except (TypeError, ValueError, RuntimeError):
            given = ", ".join(f"{name}={value!r:.40}" for name, value in found.items())
            raise ConfigError(f"samples: {given}; a number is expected of each") from None
