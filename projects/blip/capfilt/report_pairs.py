"""The galleries of the page: images with the web's text and the synthetic ones, and their fate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lavis_lite import registry
from lavis_lite.data.files import images
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.records import KEPT, Record, Slot, slots
from lavis_lite.projects.blip.capfilt.stats import RANGES
from lavis_lite.report import Section
from lavis_lite.report.markup import Html, tag
from lavis_lite.report.pictures import picture

log = logging.getLogger(__name__)
_CARDS = 8
_TEXTS = 3  # synthetic ones on a card


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
            cards = [_card(record, pictures, config) for record in choice.records[:_CARDS]]
            yield Section(choice.title, tag("div", cards, class_="gallery texts"), choice.note)


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
    """Where the filter contradicts what is known; else where it was least sure."""
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
    """Whether a web text is known to be right."""
    return str(record["fields"].get(str(config.data.label))) in config.data.right


def _keeps_synthetic(record: Record) -> bool:
    return any(record["kept"]["synthetic"])


def _rejects_a_caption(record: Record) -> bool:
    judged = zip(record["kept"]["synthetic"], record["scores"]["synthetic"], strict=True)
    return any(score is not None and not kept for kept, score in judged)


def _worst_caption(record: Record) -> float:
    return min(score for score in record["scores"]["synthetic"] if score is not None)


def _gap(record: Record) -> float:
    """How much better the best synthetic text fits than the web's."""
    best = max((s for s in record["scores"]["synthetic"] if s is not None), default=0.0)
    return best - (record["scores"]["web"] or 0.0)


def _card(record: Record, pictures: Pictures, config: CapfiltConfig) -> Html:
    """An image with the web's text and some synthetic ones, the best first."""
    web, *written = slots(record)
    written.sort(key=lambda slot: -(slot.score if slot.score is not None else -1.0))
    known = ""
    if config.data.label is not None and (value := record["fields"].get(config.data.label)):
        known = f"{config.data.label}: {value}"
    texts = [_text(web, "web", config, known)]
    texts += [_text(slot, "synthetic", config) for slot in written[:_TEXTS]]
    image = picture(pictures[record["index"]], record["web_text"])
    return tag("figure", image, tag("figcaption", texts))


def _text(slot: Slot, origin: str, config: CapfiltConfig, known: str = "") -> Html:
    mark = tag("span", "✓" if slot.kept else "✗", class_="mark good" if slot.kept else "mark bad")
    why = None
    if slot.score is None and slot.reason != KEPT:
        why = tag("p", slot.reason, class_="reference")
    return tag(
        "div",
        tag("p", tag("span", origin), tag("span", known), class_="origin"),
        tag("p", mark, slot.text or "(empty)", class_="said"),
        why,
        _meter(slot, config),
        class_="text" if slot.kept else "text rejected",
    )


def _meter(slot: Slot, config: CapfiltConfig) -> Html | None:
    if slot.score is None or config.filter is None:
        return None
    low, high = RANGES[config.filter.score]
    width = f"width:{100 * (slot.score - low) / (high - low):.0f}%"
    bar = tag("span", tag("i", style=width, class_=None if slot.kept else "low"), class_="bar")
    return tag("p", bar, tag("span", f"{slot.score:.2f}"), class_="meter")


class Pictures:
    """Images of the source by row; None where one cannot be had."""

    def __init__(self, config: CapfiltConfig) -> None:
        self._rows = registry.build("dataset", config.data.source.spec)
        self._decode = getattr(self._rows, "decode", images.decode)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._decode(self._rows[index]["image"])
        except (ValueError, LookupError, OSError) as error:
            log.warning("no image of row %d in the report: %s", index, error)
            return None
