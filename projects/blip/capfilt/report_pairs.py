"""The galleries of the page: images with the web's text and the synthetic ones, and their fate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files import images
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.records import KEPT, Record, Slot, slots
from lavis_lite.projects.blip.capfilt.stats import RANGES
from lavis_lite.report import Section, render

log = logging.getLogger(__name__)
_TEMPLATES = Path(__file__).parent / "templates"
_CARDS = 8
_NUM_SYNTHETIC = 3  # texts on a card


class Text(NamedTuple):
    """A text on a card: where it is from, what is known about it, and its fate.

    ``share`` is its score as a share of the score's range; None where it was not scored.
    """

    slot: Slot
    origin: str
    known: str
    why: str
    share: float | None


class Choice(NamedTuple):
    """A gallery: which records, the most telling first, and what one sees."""

    title: str
    note: str
    records: list[Record]


def galleries(records: list[Record], config: CapfiltConfig) -> Iterator[Section]:
    """A section for each choice that has records."""
    pictures = Pictures(config)
    for choice in _choices(records, config):
        if choice.records:
            cards = [
                {
                    "image": pictures[record["index"]],
                    "alt": record["web_text"],
                    "texts": _texts(record, config),
                }
                for record in choice.records[:_CARDS]
            ]
            body = render("pairs.html.jinja", folder=_TEMPLATES, cards=cards)
            yield Section(choice.title, body, choice.note)


def _choices(records: list[Record], config: CapfiltConfig) -> list[Choice]:
    def some(fits: Callable[[Record], bool], by: Callable[[Record], float]) -> list[Record]:
        return sorted(filter(fits, records), key=by)

    written = [r for r in records if r["synthetic"] and r["scores"]["web"] is not None]
    return [
        Choice(
            "Replaced",
            "The web's text was rejected, a synthetic one was kept: the widest gaps in score.",
            some(lambda r: _keeps_synthetic(r) and not r["kept"]["web"], lambda r: -_gap(r)),
        ),
        *_disagreements(records, config),
        Choice(
            "Captions rejected",
            "What the captioner wrote fits worse than the filter allows, the worst first.",
            sorted((r for r in written if _rejects_a_caption(r)), key=_worst_caption),
        ),
        Choice(
            "Kept together",
            "Both texts fit, and stay as two pairs.",
            [r for r in records if r["kept"]["web"] and _keeps_synthetic(r)],
        ),
        Choice(
            "Lost",
            "No text of these images was kept.",
            [r for r in records if not r["kept"]["web"] and not _keeps_synthetic(r)],
        ),
    ]


def _disagreements(records: list[Record], config: CapfiltConfig) -> Iterator[Choice]:
    """Return pairs where the filter contradicts the known truth, or else was least sure."""
    scored = [r for r in records if r["scores"]["web"] is not None]
    if config.data.label is not None and config.data.right:
        wrong = [r for r in scored if r["kept"]["web"] and not is_right(r, config)]
        right = [r for r in scored if not r["kept"]["web"] and is_right(r, config)]
        yield Choice(
            "Wrong texts that were kept",
            "The worst disagreements with what is known about the web's texts, surest first.",
            sorted(wrong, key=lambda r: -r["scores"]["web"]),
        )
        yield Choice(
            "Right texts that were rejected",
            "The other kind of disagreement, surest first.",
            sorted(right, key=lambda r: r["scores"]["web"]),
        )
    elif config.filter is not None and (limit := config.filter.limit) is not None:
        yield Choice(
            "Close calls",
            f"Web texts with scores next to the threshold of {limit:g}: is it in the right place?",
            sorted(scored, key=lambda r: abs(r["scores"]["web"] - limit)),
        )


def is_right(record: Record, config: CapfiltConfig) -> bool:
    """Tell whether a web text is known to be right."""
    return str(record["fields"].get(str(config.data.label))) in config.data.right


def _keeps_synthetic(record: Record) -> bool:
    return any(record["kept"]["synthetic"])


def _rejects_a_caption(record: Record) -> bool:
    judged = zip(record["kept"]["synthetic"], record["scores"]["synthetic"], strict=True)
    return any(score is not None and not kept for kept, score in judged)


def _worst_caption(record: Record) -> float:
    return min(score for score in record["scores"]["synthetic"] if score is not None)


def _gap(record: Record) -> float:
    """Return the score of the best synthetic text minus that of the web text."""
    best = max((s for s in record["scores"]["synthetic"] if s is not None), default=0.0)
    return best - (record["scores"]["web"] or 0.0)


def _texts(record: Record, config: CapfiltConfig) -> list[Text]:
    """Return the web's text of an image and some synthetic ones, the best first."""
    web, *written = slots(record)
    written.sort(key=lambda slot: -(slot.score if slot.score is not None else -1.0))
    known = ""
    if config.data.label is not None and (value := record["fields"].get(config.data.label)):
        known = f"{config.data.label}: {value}"
    synthetic = [_text(slot, "synthetic", config) for slot in written[:_NUM_SYNTHETIC]]
    return [_text(web, "web", config, known), *synthetic]


def _text(slot: Slot, origin: str, config: CapfiltConfig, known: str = "") -> Text:
    why = slot.reason if slot.score is None and slot.reason != KEPT else ""
    share = None
    if slot.score is not None and config.filter is not None:
        low, high = RANGES[config.filter.score]
        share = (slot.score - low) / (high - low)
    return Text(slot, origin, known, why, share)


class Pictures:
    """Images of the source by row; None where one cannot be had."""

    def __init__(self, config: CapfiltConfig) -> None:
        self._rows = registry.build("dataset", config.data.source.spec)
        self._decode = getattr(self._rows, "decode", images.decode)

    def __getitem__(self, index: int) -> Image.Image | None:
        try:
            return self._decode(self._rows[index]["image"])
        except (ValueError, LookupError, OSError) as error:
            log.warning("no image of row %d in the report: %s", index, error)
            return None
