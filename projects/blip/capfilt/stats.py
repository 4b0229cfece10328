"""Counts of a shard that add up to those of a run. Whole numbers only, so that sums are exact."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lavis_lite.projects.blip.capfilt.records import EMPTY, REPEATED, Record, slots

NUM_BARS = 50
RANGES = {"itm": (0.0, 1.0), "itc": (-1.0, 1.0)}
Stats = dict[str, Any]


def count(
    num_read: int,
    bad: Iterable[Record],
    records: list[Record],
    score: str = "itm",
    label: str | None = None,
) -> Stats:
    """The counts of one shard.

    Args:
        num_read: rows of the source.
        bad: records of the quarantine.
        records: of the readable samples.
        score: kind of the scores, for the range of the histograms.
        label: the field that says what web texts are known to be.
    """
    stats: Stats = {
        "read": num_read,
        "unreadable": {},
        "images": len(records),
        "images_with_a_text": 0,
        "captioned": sum(bool(record["synthetic"]) for record in records),
        "web": _no_texts(),
        "synthetic": _no_texts(),
        "labels": {},
    }
    for one in bad:
        reason = one["reason"].split(":")[0]
        if "captioner" in one:  # the pair is there, a text is missing
            missing = stats.setdefault("uncaptioned", {}).setdefault(one["captioner"], {})
            _add_one(missing, reason)
        else:
            _add_one(stats["unreadable"], reason)
    for record in records:
        for slot in slots(record):
            part = stats["web" if slot.is_web else "synthetic"]
            part["texts"] += 1
            part["kept"] += slot.kept
            part["empty"] += slot.reason == EMPTY
            part["repeated"] += slot.reason == REPEATED
            if slot.score is not None:
                part["histogram"][bar(slot.score, *RANGES[score])] += 1
        kept_web, kept_synthetic = record["kept"]["web"], record["kept"]["synthetic"]
        stats["images_with_a_text"] += kept_web or any(kept_synthetic)
        if label is not None:
            known = stats["labels"].setdefault(
                str(record["fields"].get(label)), {"texts": 0, "kept": 0}
            )
            known["texts"] += 1
            known["kept"] += kept_web
    return stats


def _no_texts() -> Stats:
    return {"texts": 0, "kept": 0, "empty": 0, "repeated": 0, "histogram": no_bars()}


def no_bars() -> list[int]:
    """Return an empty histogram."""
    return [0] * NUM_BARS


def bar(score: float, low: float, high: float) -> int:
    """Return the bar of a histogram that a score belongs to; those at the ends are open."""
    return min(max(int((score - low) / (high - low) * NUM_BARS), 0), NUM_BARS - 1)


def _add_one(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def add(total: Stats, part: Stats) -> Stats:
    """The sum of two counts, by name; lists place by place."""
    result = dict(total)
    for name, value in part.items():
        if name not in result:
            result[name] = value
        elif isinstance(value, dict):
            result[name] = add(result[name], value)
        elif isinstance(value, list):
            result[name] = [a + b for a, b in zip(result[name], value, strict=True)]
        else:
            result[name] += value
    return result
