"""Names and formats of figures, as the classes of their metrics state (``metrics/columns.py``)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.metrics.columns import OTHERS, Chief, Column
from lavis_lite.report.page import Headline

_UNKNOWN = Column(OTHERS, digits=3, better=0)  # of a value that its metric says nothing about


def title_of(metric: str) -> str:
    """Return the title of a metric's table."""
    return _stated(metric, "title", metric.replace("_", " "))


def columns_for(metric: str, keys: Iterable[str]) -> list[Column]:
    """The columns of a metric's table: known figures in their order, then all others."""
    present = list(dict.fromkeys(keys))
    stated: Sequence[Column] = _stated(metric, "columns", ())
    named = {column.key for column in stated}
    others = next((column for column in stated if column.key == OTHERS), _UNKNOWN)
    return [column for column in stated if column.key in present and column.shown] + [
        dataclasses.replace(others, key=key, label=key.replace("_", " "))
        for key in present
        if key not in named and others.shown
    ]


def count_of(metric: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Count what figures are of: ``300 images``; empty where the rows do not tell.

    Args:
        metric: the registered metric.
        rows: its predictions.
    """
    counted: str = _stated(metric, "counted", "rows")
    try:
        counts = Counter(counted.format_map(row) for row in rows)
    except (LookupError, TypeError, ValueError):  # rows of another release
        return ""
    return " and ".join(f"{number:,} {name}" for name, number in counts.items())


def chief_of(metric: str) -> str | None:
    """Key of the figure that stands for a metric."""
    chief = _chief(metric)
    return chief.key if chief else None


def headline_of(metric: str, figures: dict[str, float], where: str) -> Headline | None:
    """The figure that stands for a metric, for the top of the page."""
    chief = _chief(metric)
    if chief is None or chief.key not in figures:
        return None
    label = f"{chief.label} ({where})" if where else chief.label
    return Headline(figure_of(metric, figures), label, chief.unit)


def figure_of(metric: str, figures: dict[str, float]) -> str:
    """The figure that stands for a metric, written; a dash where it is missing."""
    chief = _chief(metric)
    if chief is None or figures.get(chief.key) is None:
        return "–"
    return f"{chief.factor * figures[chief.key]:.{chief.digits}f}"


def _chief(metric: str) -> Chief | None:
    return _stated(metric, "chief", None)


def _stated(metric: str, attribute: str, default: Any) -> Any:
    """Return what a metric's class states; the default also for one that is not registered."""
    try:
        return getattr(registry.entry("metric", metric).result, attribute, default)
    except (UnknownName, ConfigError):
        return default
