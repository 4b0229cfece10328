"""The scores of a shard: every scorer asked about every batch, each image encoded once a model."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite.data.files.images import decode
from lavis_lite.modules.interfaces import EncodesImage
from lavis_lite.projects.blip.capfilt.filter import Pair
from lavis_lite.projects.blip.capfilt.names import Span, spans
from lavis_lite.projects.blip.capfilt.records import (
    EMPTY,
    NO_NUMBER,
    REPEATED,
    Record,
    Slot,
    slots,
)
from lavis_lite.projects.blip.capfilt.stats import Stats, bar, no_bars
from lavis_lite.registry.capabilities import members_of

DOES_NOT_APPLY = "does not apply"
NOT_READ = "image not read"
DIGITS = 6  # of a number in a record


class Images:
    """The images of a batch as the models read them; each model encodes them once.

    Args:
        pixels: part of the run -> (B, 3, H, W).
        parts: the part whose pixels a model reads, by the model's ``id``.
        device: of the models.
        files: B image files, where something reads them.
        decode: makes a picture of a file, as the source does.
    """

    def __init__(
        self,
        pixels: Mapping[str, Tensor],
        parts: Mapping[int, str],
        device: torch.device,
        files: Sequence[bytes] = (),
        decode: Callable[[bytes], Image.Image] = decode,
    ) -> None:
        self.pixels, self.files = pixels, files
        self._parts, self._device, self._decode = parts, device, decode
        self._tokens: dict[int, Tensor] = {}

    def of(self, model: object) -> Tensor:
        """(B, 3, H, W) as a model reads them."""
        return self.pixels[self._parts[id(model)]].to(self._device)

    def tokens(self, model: EncodesImage) -> Tensor:
        """(B, N, D) of a model's image encoder."""
        if id(model) not in self._tokens:
            self._tokens[id(model)] = model.encode_image(self.of(model))
        return self._tokens[id(model)]

    @functools.cached_property
    def pictures(self) -> list[Image.Image]:
        """B decoded images."""
        return [self._decode(file) for file in self.files]

    def choose(self, rows: list[int]) -> Images:
        """Return some rows of the batch."""
        return Images(
            {name: pixels[rows] for name, pixels in self.pixels.items()},
            self._parts,
            self._device,
            [self.files[row] for row in rows] if self.files else (),
            self._decode,
        )


class ScoreBatch(NamedTuple):
    """The images and texts that a scorer is asked about.

    Attributes:
        records: B records, see records.py.
        pairs: the texts that can be judged, each with the row of its image; none is empty, and
            none is twice beside an image.
        slots: of each pair, the place of the text in its record; ``is_web`` tells the web's.
        captions: of each record, the synthetic texts that are not empty.
        images: of each record; empty where no scorer reads images.
    """

    records: list[Record]
    pairs: list[Pair]
    slots: list[Slot]
    captions: list[list[str]]
    images: Images

    def tokens(self, model: EncodesImage) -> Tensor:
        """(B, N, D) of a model's image encoder, which runs once for all who ask."""
        return self.images.tokens(model)

    @property
    def files(self) -> Sequence[bytes]:
        """B image files, of a scorer that ``reads`` ``files`` or ``pictures``."""
        return self.images.files

    @property
    def pictures(self) -> list[Image.Image]:
        """B decoded images, of a scorer that ``reads`` ``pictures``."""
        return self.images.pictures


class Readable(NamedTuple):
    """A text that can be judged: the row of its image, its place in the record, as processed."""

    row: int
    slot: Slot
    text: str


def score_batch(
    records: list[Record],
    readable: Sequence[Readable],
    images: Images,
    process: Callable[[str], str],
) -> ScoreBatch:
    """Lay a batch out for scorers.

    Args:
        records: B records.
        readable: the texts that can be judged.
        images: of the records.
        process: the text processor.
    """
    captions = [
        [text for text in map(process, record["synthetic"]) if text.strip()] for record in records
    ]
    return ScoreBatch(
        records,
        [Pair(one.row, one.text) for one in readable],
        [one.slot for one in readable],
        captions,
        images,
    )


class Scores(Protocol):
    """A scorer, as its contract (`lavis-lite info scorer`) has it."""

    of: str

    def score(self, batch: ScoreBatch) -> Sequence[object]:
        """Return a value for each pair, or each record, of a batch."""
        ...


class NamedScorer(NamedTuple):
    """A scorer, the name that its scores are stored under, and its model."""

    name: str
    scorer: Scores
    model: nn.Module | None = None


def reads_images(scorer: Scores) -> bool:
    """Tell whether a scorer, or its class, looks at images at all."""
    reads = set(getattr(scorer, "reads", ()))
    encodes = "encode_image" in members_of(getattr(scorer, "requires", ()))
    return encodes or scorer.of == "image" or bool(reads & {"files", "pictures"})


def reads_files(scorer: object) -> bool:
    """Tell whether a scorer, or its class, needs the images' files."""
    return bool({"files", "pictures"}.intersection(getattr(scorer, "reads", ())))


class ShardScores:
    """The scores of one shard as scorers give them, written into its records at the end.

    Args:
        scorers: with distinct names.
        shard: its number.

    Attributes:
        records: those that were added.
    """

    def __init__(self, scorers: Sequence[NamedScorer], shard: int) -> None:
        self.scorers, self.shard = scorers, shard
        self._found: dict[str, list[Any]] = {one.name: [] for one in scorers}
        self._slots: list[Slot] = []
        self._rows: list[int] = []
        self.records: list[Record] = []
        self._unread: set[int] = set()

    def add(self, batch: ScoreBatch) -> None:
        """Ask every scorer about a batch, whose images could be read."""
        first = len(self.records)
        self._take(batch.records)
        self._slots += batch.slots
        self._rows += [first + pair.row for pair in batch.pairs]
        for name, scorer, _ in self.scorers:
            values = scorer.score(batch)
            expected = batch.records if scorer.of == "image" else batch.pairs
            assert len(values) == len(expected), f"{name}: {len(values)} of {len(expected)}"
            self._found[name] += list(values)

    def add_unread(self, record: Record) -> None:
        """Note a record whose image cannot be read: it has no scores."""
        self._unread.add(record["index"])
        self._take([record])
        for name, scorer, _ in self.scorers:
            if scorer.of == "image":
                self._found[name].append(None)

    def _take(self, records: list[Record]) -> None:
        for record in records:
            record.setdefault("text_scores", {})
            record.setdefault("image_scores", {})
        self.records += records

    def finish(self) -> Stats:
        """Write all scores into the records; returns the counts of each score by its name."""
        stats: Stats = {}
        for name, scorer, _ in self.scorers:
            values = self._found[name]
            if hasattr(scorer, "settle"):
                values = scorer.settle(values, self._rows, self.shard)
            for score, span in spans(name, scorer).items():
                part = score[len(name) + 1 :] if score != name else None
                own = [one if part is None or one is None else one[part] for one in values]
                write = self._write_images if scorer.of == "image" else self._write_texts
                stats[score] = write(score, own, span)
        return stats

    def _write_images(self, score: str, values: list[Any], span: Span) -> Stats:
        counts = Tally(span)
        for record, value in zip(self.records, values, strict=True):
            unread = NOT_READ if record["index"] in self._unread else DOES_NOT_APPLY
            record["image_scores"][score] = counts.take(value, unread)
        return {"image": counts.stats}

    def _write_texts(self, score: str, values: list[Any], span: Span) -> Stats:
        tallies = {"web": Tally(span), "synthetic": Tally(span)}
        for record in self.records:
            none: list[float | None] = [None] * len(record["synthetic"])
            record["text_scores"][score] = {"web": None, "synthetic": none}
        judged = set()
        for slot, value in zip(self._slots, values, strict=True):
            judged.add((slot.record["index"], slot.place))
            tally = tallies["web" if slot.is_web else "synthetic"]
            slot.set_score(score, tally.take(value, DOES_NOT_APPLY))
        for record in self.records:
            for slot in slots(record):
                if (record["index"], slot.place) not in judged:
                    tallies["web" if slot.is_web else "synthetic"].take(None, self._why(slot))
        return {origin: tally.stats for origin, tally in tallies.items()}

    def _why(self, slot: Slot) -> str:
        """Return why a text was not put before the scorers."""
        if slot.reason in (EMPTY, REPEATED):
            return slot.reason
        return NOT_READ if slot.record["index"] in self._unread else EMPTY


class Tally:
    """Counts of one score: how many of how many, why not the others, and a histogram.

    Args:
        span: lowest and highest value of the histogram; None for a score without one.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._missing: Counter[str] = Counter()
        self._histogram = no_bars() if span else None
        self._seen = 0

    def take(self, value: object, why_none: str) -> float | str | None:
        """Count a value and return it as a record has it; one that is no number is None.

        Args:
            value: what a scorer gave.
            why_none: the reason if that is None.
        """
        self._seen += 1
        if value is None or isinstance(value, str):
            self._missing[why_none] += value is None
            return value
        number = float(value)  # type: ignore[arg-type]
        if not math.isfinite(number):
            self._missing[NO_NUMBER] += 1
            return None
        if self._histogram is not None and self._span is not None:
            self._histogram[bar(number, *self._span)] += 1
        return int(number) if isinstance(value, int) else round(number, DIGITS)

    @property
    def stats(self) -> Stats:
        """``seen``, ``scored``, ``missing`` by reason, and ``histogram`` where there is one."""
        missing = dict(+self._missing)
        counts: Stats = {"seen": self._seen, "scored": self._seen - sum(missing.values())}
        counts["missing"] = missing
        if self._histogram is not None:
            counts["histogram"] = self._histogram
        return counts
