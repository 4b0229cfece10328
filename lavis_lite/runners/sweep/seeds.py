"""The statistics of an arm over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

Values = Mapping[int, float | None]


def statistic(values: Values) -> dict[str, Any]:
    """Return ``mean``, ``spread`` and ``seeds``, the value of each seed.

    The spread is the standard deviation of the sample (divided by n - 1), None for a single value.
    Seeds without a value do not count; without any, mean and spread are None.
    """
    found = {seed: value for seed, value in values.items() if value is not None}
    numbers = list(found.values())
    return {
        "mean": statistics.fmean(numbers) if numbers else None,
        "spread": statistics.stdev(numbers) if len(numbers) > 1 else None,
        "seeds": {str(seed): value for seed, value in found.items()},
    }


def difference(values: Values, base: Values) -> dict[str, Any]:
    """The statistic of values minus those of the base with the same seed."""
    pairs = {seed: (value, base.get(seed)) for seed, value in values.items()}
    return statistic({s: a - b for s, (a, b) in pairs.items() if a is not None and b is not None})


def written(found: Mapping[str, Any], digits: int, sign: str = "") -> str:
    """A statistic as ``63.2 ± 4.1``; a dash where there is none."""
    if found["mean"] is None:
        return "–"
    mean = f"{found['mean']:{sign}.{digits}f}"
    spread = f" ± {found['spread']:.{digits}f}" if found["spread"] is not None else ""
    return (mean + spread).replace("-", "−")
