"""The identity of a run's data, cheaply told: numbers of rows, and a hash of some of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavis_lite import distributed
from lavis_lite.errors import DataError

log = logging.getLogger(__name__)
_SAMPLED_ROWS = 200


def rows_hash(source: Any) -> str:
    """A hash of keys and texts of some rows, evenly spread: another input shows, cheaply."""
    digest = hashlib.sha256()
    read = source.annotation if hasattr(source, "annotation") else source.__getitem__
    for number in range(min(len(source), _SAMPLED_ROWS)):
        index = number * len(source) // min(len(source), _SAMPLED_ROWS)
        try:
            row = read(index)
            text = f"{row['key']}\n{row['text_input']}"
        except (DataError, OSError) as error:
            text = type(error).__name__
        digest.update(f"{index} {text}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def identities(datasets: Iterable[Any]) -> list[dict[str, Any]]:
    """Tell each dataset's ``rows`` and, where rows come without their images, ``some`` of them."""
    return [
        {
            "rows": len(dataset),
            "some": rows_hash(dataset) if hasattr(dataset, "annotation") else None,
        }
        for dataset in datasets
    ]


def changes(
    before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], where: str
) -> list[str]:
    """List differences of the rows, as lines that begin with the key of the dataset."""
    lines = []
    for number, (old, new) in enumerate(zip(before, now, strict=False)):
        if old["rows"] != new["rows"]:
            lines.append(f"{where}[{number}]: {old['rows']} rows before, {new['rows']} now")
        elif old["some"] != new["some"]:
            lines.append(f"{where}[{number}]: {new['rows']} rows as before, other texts or keys")
    return lines


def warn_of_changes(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """Warn of a run that goes on with other rows than it began with: it is not exact then."""
    if distributed.is_main() and (changed := changes(before, now, "data.train")):
        log.warning(
            "the run goes on with other data than it began with, so that it is no exact "
            "continuation:\n  %s",
            "\n  ".join(changed),
        )
