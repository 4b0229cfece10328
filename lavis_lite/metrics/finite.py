"""Asking a model about a batch, and going on with the others where it gives no numbers for some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lavis_lite.errors import NotFinite

T = TypeVar("T")


def ask_each(ask: Callable[[list[int]], Sequence[T]], size: int) -> list[T | None]:
    """Ask for each row of a batch; None stands for rows for which ``ask`` raises NotFinite.

    Args:
        ask: takes numbers of rows and gives something for each of them.
        size: rows in the batch.
    """
    rows = list(range(size))
    found: list[T | None] = [None] * size
    while rows:
        try:
            answers = ask(rows)
        except NotFinite as error:
            bad = set(error.rows)
            assert bad, "an error of no row"
            rows = [row for place, row in enumerate(rows) if place not in bad]
            continue
        for row, answer in zip(rows, answers, strict=True):
            found[row] = answer
        break
    return found
