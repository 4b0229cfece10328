"""Precision, recall and ROC of the filter, for data with a field that tells the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy

from lavis_lite.metrics.itm import area_under_curve
from lavis_lite.projects.blip.capfilt.config import SourceConfig
from lavis_lite.projects.blip.capfilt.job import Folder
from lavis_lite.projects.blip.capfilt.layout import RECORDS
from lavis_lite.projects.blip.capfilt.records import Record

_MOST_TEXTS = 10_000_000  # whose scores are held at the end: 100 MB
_POINTS = 50  # of the curve


def judge_filter(
    folder: Folder, data: SourceConfig, num_shards: int, num_records: int
) -> dict[str, Any] | None:
    """The verdicts on web texts beside what is known about them.

    Args:
        folder: of a run whose shards are all done.
        data: ``label`` names the field, ``right`` its values that mean that a text is right.
        num_shards: of the run.
        num_records: of all shards.

    Returns:
        ``texts`` and ``right``, counts; ``precision`` and ``recall`` of what was kept, in [0, 1],
        None where nothing was kept or nothing is right; where right and wrong texts have scores,
        also ``auc`` and ``roc``. None where nothing is known, or the texts are too many to look at.
    """
    if data.label is None or not data.right or num_records > _MOST_TEXTS:
        return None
    right = numpy.empty(num_records, bool)
    kept = numpy.empty(num_records, bool)
    scores = numpy.full(num_records, numpy.nan)
    right_values = set(data.right)
    for place, record in enumerate(_records(folder, num_shards)):
        right[place] = str(record["fields"].get(data.label)) in right_values
        kept[place] = record["kept"]["web"]
        if (score := record["scores"]["web"]) is not None:
            scores[place] = score
    measures: dict[str, Any] = {
        "texts": num_records,
        "right": int(right.sum()),
        "precision": _share(right[kept]),
        "recall": _share(kept[right]),
    }
    known = ~numpy.isnan(scores)
    true, false = scores[known & right], scores[known & ~right]
    if len(true) and len(false):
        measures |= {"auc": round(area_under_curve(true, false), 5), "roc": roc(true, false)}
    return measures


def _records(folder: Folder, num_shards: int) -> Iterator[Record]:
    for shard in range(num_shards):
        with folder.file(shard, RECORDS).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)


def _share(values: numpy.ndarray) -> float | None:
    return round(float(values.mean()), 5) if len(values) else None


def roc(true: numpy.ndarray, false: numpy.ndarray) -> list[list[float]]:
    """The receiver operating characteristic, at most ``_POINTS`` + 1 points of it.

    Args:
        true: (R,) scores of right texts.
        false: (W,) scores of wrong ones.

    Returns:
        Share of wrong and share of right texts above a limit, both rising from 0 to 1.
    """
    ascending_false, ascending_true = numpy.sort(false), numpy.sort(true)
    both = numpy.unique(numpy.concatenate([false, true]))[::-1]
    places = numpy.unique(numpy.linspace(0, len(both) - 1, min(len(both), _POINTS)).round())
    points = [[0.0, 0.0]]
    for limit in both[places.astype(int)]:  # at least as good as the limit
        shares = [
            1 - float(numpy.searchsorted(part, limit, side="left")) / len(part)
            for part in (ascending_false, ascending_true)
        ]
        points.append([round(share, 5) for share in shares])
    return points
