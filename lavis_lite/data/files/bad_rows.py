"""Damaged entries of annotation files, kept in their places until somebody reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lavis_lite.errors import DataError

FOREIGN = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class BadRow:
    """An entry that cannot be a row; reading it raises DataError.

    Attributes:
        reason: for the quarantine, its kind before a colon.
    """

    reason: str


class PlacedRow(dict[str, Any]):
    """A row that knows where it was written, for messages: `pairs.csv:7`."""

    __slots__ = ("place",)

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]], place: str):
        super().__init__(values)
        self.place = place


def each(
    rows: Iterable[Any], change: Callable[[Any], dict[str, Any] | BadRow]
) -> Iterator[dict[str, Any] | BadRow]:
    """Yield every row changed; one that `change` fails on becomes a BadRow in its place."""
    for number, row in enumerate(rows):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield change(row)
        except DataError as error:
            yield BadRow(f"damaged row: {error}")
        except FOREIGN as error:
            what = f"no {error}" if isinstance(error, KeyError) else f"{error}"
            yield BadRow(f"damaged row: {getattr(row, 'place', f'row {number}')}: {what:.200}")
