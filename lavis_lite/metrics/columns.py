"""Columns of metrics: how tables call, write and compare the values.

A metric's class may state ``title`` (of its table), ``columns`` (a sequence of `Column`), ``chief``
(a `Chief`) and ``counted`` (what a row of its predictions is: ``"images"``, or with fields of the
row, ``"{query}s"``). Reports ask for these through the registry; a metric that states none has its
values by their keys.
"""

from __future__ import annotations

from dataclasses import dataclass

OTHERS = "*"


@dataclass(frozen=True)
class Column:
    """One value of a metric.

    Attributes:
        key: of the value; ``*`` stands for all values that no other column names.
        label: what it is called; of ``*``, each is called by its key.
        group: a heading over neighbouring columns.
        digits: after the point.
        better: 1 where high values are good, -1 where low ones are, 0 where neither is; the best of
            several runs is emphasised.
        unit: ``%``; empty for shares and scores.
        shown: false for a value that tables leave out.
    """

    key: str
    label: str = ""
    group: str = ""
    digits: int = 1
    better: int = 1
    unit: str = ""
    shown: bool = True

    @property
    def name(self) -> str:
        """The label after that of the group."""
        return f"{self.group}, {self.label}" if self.group else self.label


@dataclass(frozen=True)
class Chief:
    """The value that stands for a metric at the top of a page.

    Attributes:
        key: of the value.
        label: what it is, in words.
        unit: written after it.
        digits: after the point.
        factor: the value is multiplied by it: 100 makes % of a share.
    """

    key: str
    label: str
    unit: str = ""
    digits: int = 1
    factor: float = 1
