"""The labels of a run as numbers of its texts, and what they say about a cut."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import numpy

from lavis_lite.errors import DataError
from lavis_lite.projects.blip.capfilt.cuts import cut_at, stratum_weights, weighted_roc
from lavis_lite.projects.blip.capfilt.labels import LABELS, Holding, Label, append, verdicts
from lavis_lite.projects.blip.capfilt.review.index import TextIndex

_BARS = 40


class Judgements:
    """Everybody's labels, those included that others write while this runs.

    Args:
        index: of the run that they are of.
    """

    def __init__(self, index: TextIndex) -> None:
        self._index = index
        self._folder = index.folder / LABELS
        self._holding = Holding()
        self._lock = threading.Lock()

    def add(self, record: int, place: int, label: str, labeller: str, note: str) -> None:
        """Write a label down.

        Raises:
            DataError: there is no such text or label, or it cannot be written.
        """
        found = self._index.texts(record)
        if not 0 <= place < len(found):
            raise DataError(f"record {record} has {len(found)} texts, none at place {place}")
        own = found[place]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        key = self._index.keys[record]
        append(
            self._index.folder,
            Label(key, place, own.source, own.text, label, labeller, now, note),
        )

    def labels(self) -> list[Label]:
        """Return what holds, read up to what the files have now."""
        with self._lock:
            for path in sorted(self._folder.glob("*.jsonl")):
                self._holding.read(path)
            return list(self._holding)

    def of_record(self, record: int) -> list[Label]:
        """Return what all labellers say about the texts of a record."""
        key = self._index.keys[record]
        return [label for label in self.labels() if label.key == key and self._text(label) >= 0]

    def judged_by(self, labeller: str) -> numpy.ndarray:
        """Return which texts a labeller has judged, (T,) bool."""
        judged = numpy.zeros(self._index.num_texts, bool)
        own = (self._text(label) for label in self.labels() if label.labeller == labeller)
        judged[[text for text in own if text >= 0]] = True
        return judged

    def _text(self, label: Label) -> int:
        """Return the number of the text that a label is of; -1 if the run has it no more."""
        record = self._index.number_of.get(label.key)
        text = -1 if record is None else self._index.text(record, label.place)
        return text if text >= 0 and self._index.hashes[text] == hash(label.text) else -1

    def verdicts(self) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return the numbers of the texts that are judged, (J,), and whether they fit, (J,) bool.

        Labellers who disagree are counted, see `labels.verdicts`.
        """
        labels = [label for label in self.labels() if self._text(label) >= 0]
        decided = verdicts(labels)
        numbers = [self._index.text(self._index.number_of[key], place) for key, place in decided]
        return numpy.array(numbers, int), numpy.array(list(decided.values()), bool)

    def measures(self, score: str, limit: float, of: str) -> dict[str, Any]:
        """Return what a cut keeps, its precision and recall, the ROC and the bars of the scores.

        Args:
            score: name of a scorer.
            limit: texts whose score is at least this are kept.
            of: ``all``, ``web``, ``synthetic`` or a captioner: the texts that are looked at.
        """
        column = self._index.score(score)
        chosen = self._index.of(of) & ~numpy.isnan(column)
        numbers, fits = self.verdicts()
        fits = fits[chosen[numbers]]
        judged, scores = column[numbers[chosen[numbers]]], column[chosen]
        cut = cut_at(limit, scores, judged, fits)
        area, roc = weighted_roc(scores, judged, fits)
        low, high = bounds(scores)
        return {
            "limit": limit,
            "kept": cut.kept,
            "texts": len(scores),
            "precision": cut.precision._asdict(),
            "recall": cut.recall._asdict(),
            "judged": len(judged),
            "represented": float(stratum_weights(scores, judged).sum()) / max(1, len(scores)),
            "fit": int(fits.sum()),
            "unsure": sum(label.label == "unsure" for label in self.labels()),
            "low": low,
            "high": high,
            "bars": _bars(scores, low, high),
            "right": _bars(judged[fits], low, high),
            "wrong": _bars(judged[~fits], low, high),
            "auc": area,
            "roc": roc,
        }


def _bars(scores: numpy.ndarray, low: float, high: float) -> list[int]:
    return numpy.histogram(scores, _BARS, (low, high))[0].tolist()


def bounds(scores: numpy.ndarray) -> tuple[float, float]:
    """Return the range of a slider over scores, (0, 1) where there are none or all are equal."""
    if not len(scores):
        return 0.0, 1.0
    low, high = float(scores.min()), float(scores.max())
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if low < high else (low - 0.5, low + 0.5)
