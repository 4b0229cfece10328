"""Accounts of metrics: how many samples figures are of, and why others are not among them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lavis_lite import distributed
from lavis_lite.data.counts import Counts
from lavis_lite.errors import DataError
from lavis_lite.modules.interfaces import EvaluationData

log = logging.getLogger(__name__)
NOT_FINITE = "not finite"
_NOT_READ = "not read"


def not_finite(what: str) -> str:
    """The reason for setting aside what a model gave no numbers for."""
    return f"{NOT_FINITE}: the model gives NaN or infinity as {what} (weights? precision?)"


def set_aside(data: EvaluationData, index: int, key: str | None, reason: str) -> None:
    """Note a row of the data that cannot be judged; its figure must not be counted."""
    if hasattr(data, "set_aside"):
        data.set_aside(index, key, reason)
    else:
        log.warning("row %d is set aside: %s", index, reason)
        _noted(data)[index] = reason


def count(
    data: EvaluationData,
    total: Iterable[int],
    used: Iterable[int],
    left_out: Mapping[str, Sequence[int]] | None = None,
    because_of: Mapping[int, int] | None = None,
) -> Counts:
    """Count the samples of ``total`` that figures are of, the same on every process.

    Args:
        data: knows why rows could not be read.
        total: the rows of all processes that stand for what is counted.
        used: those that the figures are of.
        left_out: rule -> rows that have nothing to judge.
        because_of: row -> the row that is to blame where it is set aside, such as its image's.
    """
    numbers, kept, rules = list(total), set(used), left_out or {}
    blamed = because_of or {}
    ruled = {index for rows in rules.values() for index in rows}
    reasons: dict[int, str] = {}
    for part in distributed.all_gather_object(_noted(data)):
        reasons |= part
    lacking = Counter(
        reasons.get(blamed.get(index, index), _NOT_READ).split(":")[0]
        for index in numbers
        if index not in kept and index not in ruled
    )
    return Counts(
        len(numbers),
        sum(index in kept for index in numbers),
        dict(lacking.most_common()),
        {rule: len(rows) for rule, rows in rules.items() if rows},
    )


def row_count(
    data: EvaluationData, used: Iterable[int], left_out: Mapping[str, Sequence[int]] | None = None
) -> Counts:
    """As ``count``, of all rows of the data."""
    return count(data, range(len(data.dataset)), used, left_out)


def count_read(data: EvaluationData) -> Counts:
    """Count the rows that could be read, for a metric that does not count."""
    bad = {index for part in distributed.all_gather_object(_noted(data)) for index in part}
    return row_count(data, set(range(len(data.dataset))) - bad)


def demand_some(counted: Counts, metric: str, what: str = "images") -> None:
    """Refuse to give figures of nothing.

    Raises:
        DataError: with the reasons for which everything was set aside or left out.
    """
    if not counted.used:
        none = "is left" if counted.left_out else "could be read"
        raise DataError(
            f"{metric}: nothing to evaluate: none of the {what} {none}: {counted.spell(what)}"
        )


def demand_numbers(found: Tensor, metric: str, what: str) -> None:
    """Refuse to rank by what is no number; every process comes to the same result.

    Args:
        found: what the model gave, of any shape.
        metric: for the message.
        what: it is, for the message.

    Raises:
        FloatingPointError: some of it is NaN or infinite.
    """
    seen = torch.tensor([(~found.isfinite()).sum().item(), found.numel()], dtype=torch.long)
    bad, total = distributed.all_reduce(seen).tolist()
    if bad:
        raise FloatingPointError(f"{metric}: {not_finite(what)}, {bad} of {total} numbers")


def _noted(data: object) -> dict[int, str]:
    """Row -> why it was set aside, as the data remembers it."""
    if not hasattr(data, "bad_rows") or not isinstance(data.bad_rows, dict):
        return data.__dict__.setdefault("_set_aside", {})
    return data.bad_rows
