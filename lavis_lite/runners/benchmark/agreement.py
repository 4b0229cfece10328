"""The comparison of the results of two implementations of the same work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """The distance between two results, and the distance that is allowed.

    Args:
        what: what was compared, such as ``logits``.
        value: the difference; 0 is equal.
        tolerance: the largest difference that counts as equal.
    """

    what: str
    value: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """True if the difference is within its tolerance; NaN is not."""
        return self.value <= self.tolerance

    def record(self) -> dict[str, Any]:
        """Return the difference as a JSON object for the benchmark's record."""
        return {**asdict(self), "agrees": self.agrees}


def of_tensors(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Difference:
    """The largest absolute difference of two tensors; infinite where their shapes differ."""
    if ours.shape != theirs.shape:
        return Difference(what, float("inf"), tolerance)
    apart = (ours.detach().double().cpu() - theirs.detach().double().cpu()).abs()
    return Difference(what, float(apart.max()) if apart.numel() else 0.0, tolerance)


def of_lists(
    what: str, ours: Sequence[Any], theirs: Sequence[Any], tolerance: float = 0.0
) -> Difference:
    """The share of places at which two lists differ, in [0, 1]; 1 where their lengths do."""
    if len(ours) != len(theirs):
        return Difference(what, 1.0, tolerance)
    apart = sum(mine != other for mine, other in zip(ours, theirs, strict=True))
    return Difference(what, apart / max(1, len(ours)), tolerance)
