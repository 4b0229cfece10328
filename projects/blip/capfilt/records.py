"""The record of a sample: its texts, their scores and verdicts, with reasons to reject."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from lavis_lite.projects.blip.capfilt.config import Filter

Record = dict[str, Any]
KEPT = "kept"
EMPTY = "empty text"
REPEATED = "repeats another text of the image"
BELOW = "score not above the threshold"
NOT_BEST = "not in the best share"
NO_NUMBER = "score is not a number"


def new_record(index: int, key: str, web_text: str, synthetic: list[str], own: Record) -> Record:
    """A record that nothing has been decided about.

    Args:
        index: row of the source.
        key: of the sample.
        web_text: as the source has it.
        synthetic: captions.
        own: ``path``, ``image_id`` and further ``fields`` of the row.
    """
    return {
        "key": key,
        "index": index,
        "image": own["path"],
        "image_id": own["image_id"],
        "web_text": web_text,
        "synthetic": synthetic,
        "scores": {"web": None, "synthetic": [None] * len(synthetic)},
        "kept": {"web": False, "synthetic": [False] * len(synthetic)},
        "reason": {"web": EMPTY, "synthetic": [EMPTY] * len(synthetic)},
        "fields": own["fields"],
    }


class Slot:
    """One text of a record, and the place of its score and verdict."""

    def __init__(self, record: Record, place: int | None) -> None:
        self.record, self.place = record, place  # place None: the web text

    @property
    def text(self) -> str:
        """The text."""
        record = self.record
        return record["web_text"] if self.place is None else record["synthetic"][self.place]

    @property
    def is_web(self) -> bool:
        """True for the text that came with the image."""
        return self.place is None

    @property
    def score(self) -> float | None:
        """The score of the text; None if it has none."""
        scores = self.record["scores"]
        return scores["web"] if self.place is None else scores["synthetic"][self.place]

    @property
    def kept(self) -> bool:
        """True if the text was kept."""
        kept = self.record["kept"]
        return kept["web"] if self.place is None else kept["synthetic"][self.place]

    @property
    def reason(self) -> str:
        """The reason why the text was kept or rejected."""
        reason = self.record["reason"]
        return reason["web"] if self.place is None else reason["synthetic"][self.place]

    def set(self, what: str, value: object) -> None:
        """Write down its ``scores``, ``kept`` or ``reason``."""
        if self.place is None:
            self.record[what]["web"] = value
        else:
            self.record[what]["synthetic"][self.place] = value

    def set_score(self, scorer: str, value: object) -> None:
        """Write down a score of one of the scorers."""
        scores = self.record["text_scores"][scorer]
        if self.place is None:
            scores["web"] = value
        else:
            scores["synthetic"][self.place] = value

    def judge(self, score: float) -> None:
        """Write down its score; one that is no number rejects it."""
        if math.isfinite(score):
            self.set("scores", score)
        else:
            self.decide(False, NO_NUMBER)

    def decide(self, kept: bool, reason: str) -> None:
        """Keep it or not, and why."""
        self.set("kept", kept)
        self.set("reason", reason)


def slots(record: Record) -> Iterator[Slot]:
    """The texts of a record, the web's first."""
    yield Slot(record, None)
    for place in range(len(record["synthetic"])):
        yield Slot(record, place)


def readable_slots(record: Record, process: Callable[[str], str]) -> list[tuple[Slot, str]]:
    """The texts that a filter can judge, processed for it: neither empty nor there before."""
    slot_of: dict[str, Slot] = {}
    for slot in slots(record):
        text = process(slot.text)
        if not text.strip():
            slot.decide(False, EMPTY)
        elif text in slot_of:
            slot.decide(False, REPEATED)
        else:
            slot_of[text] = slot
            slot.decide(True, "no filter")
    return [(slot, text) for text, slot in slot_of.items()]


def decide(records: list[Record], settings: Filter | None) -> None:
    """Keep the texts of a shard whose score is above the threshold, or its best share.

    Of equally good texts at the end of the share the first ones are kept.
    """
    if settings is None:
        return
    judged = [slot for record in records for slot in slots(record) if slot.score is not None]
    if settings.keep_fraction is None:
        limit = settings.limit
        for slot in judged:
            good = slot.score > limit
            slot.decide(good, KEPT if good else BELOW)
        return
    best = sorted(range(len(judged)), key=lambda place: (-judged[place].score, place))  # type: ignore[operator]
    chosen = set(best[: round(settings.keep_fraction * len(judged))])
    for place, slot in enumerate(judged):
        slot.decide(place in chosen, KEPT if place in chosen else NOT_BEST)
