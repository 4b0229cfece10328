"""Images with what a model says about them, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.markup import Html, join, tag
from lavis_lite.report.pictures import picture

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """An image with its caption.

    Args:
        image: the picture; None where it could not be read.
        caption: what was generated.
        reference: what a person says, or the truth.
        match: probability in [0, 1] that the caption fits, by a model; None where unknown.
        right: whether the caption is known to be right; None where unknown.
        remark: what is wrong with it, or why it was kept or rejected.
        earlier: another caption, which this one replaces, and whether it is known to be right.
    """

    image: Image | None
    caption: str
    reference: str = ""
    match: float | None = None
    right: bool | None = None
    remark: str = ""
    earlier: tuple[str, bool | None] | None = None


def gallery(examples: Sequence[Example]) -> Html:
    """Cards in a grid."""
    return tag("div", [_card(example) for example in examples], class_="gallery")


def _card(example: Example) -> Html:
    earlier = None
    if example.earlier is not None:
        caption, right = example.earlier
        earlier = tag("p", _mark(right), tag("s", caption or "(empty)"), class_="earlier")
    reference = tag("p", example.reference, class_="reference") if example.reference else None
    text = join(
        earlier,
        tag("p", _mark(example.right), example.caption or "(empty)", class_="said"),
        tag("p", example.remark, class_="remark") if example.remark else None,
        reference,
        _meter(example.match),
    )
    return tag("figure", picture(example.image, example.caption), tag("figcaption", text))


def _mark(right: bool | None) -> Html | None:
    if right is None:
        return None
    return tag(
        "span",
        "✓" if right else "✗",
        class_="mark good" if right else "mark bad",
        title="right" if right else "wrong",
    )


def _meter(share: float | None) -> Html | None:
    if share is None:
        return None
    shown = 100 * min(max(share, 0.0), 1.0)  # NaN shows as an empty bar
    width = f"width:{shown:.0f}%" if shown == shown else "width:0%"
    bar = tag("span", tag("i", style=width, class_="low" if share < 0.5 else None), class_="bar")
    return tag("p", bar, tag("span", f"fits: {share:.2f}"), class_="meter")


@dataclass(frozen=True)
class FoundImage:
    """An image that a text found."""

    image: Image | None
    score: float
    correct: bool
    label: str = ""


@dataclass(frozen=True)
class FoundText:
    """A text that an image found."""

    text: str
    score: float
    correct: bool


@dataclass(frozen=True)
class TextQuery:
    """A text, the images that it found, best first, and the rank of the first true one."""

    text: str
    found: Sequence[FoundImage]
    rank: int


@dataclass(frozen=True)
class ImageQuery:
    """An image, the texts that it found, best first, and the rank of the first true one."""

    image: Image | None
    found: Sequence[FoundText]
    rank: int


def text_queries(queries: Sequence[TextQuery]) -> Html:
    """A row per query: the text, then the images."""
    return tag("div", [_text_query(query) for query in queries], class_="queries")


def _text_query(query: TextQuery) -> Html:
    images = [
        tag(
            "figure",
            picture(found.image, found.label),
            tag("figcaption", _score(found.score, found.correct)),
            class_="hit" if found.correct else None,
        )
        for found in query.found
    ]
    asked = tag("div", tag("p", query.text, class_="said"), _rank(query.rank), class_="asked")
    return tag("div", asked, tag("div", images, class_="strip"), class_="query")


def image_queries(queries: Sequence[ImageQuery]) -> Html:
    """A card per query: the image beside the texts."""
    return tag("div", [_image_query(query) for query in queries], class_="pairs-grid")


def _image_query(query: ImageQuery) -> Html:
    items = [
        tag(
            "li",
            tag("span", found.text),
            _score(found.score, found.correct),
            class_="hit" if found.correct else None,
        )
        for found in query.found
    ]
    asked = tag("figure", picture(query.image, "query"), tag("figcaption", _rank(query.rank)))
    return tag("div", asked, tag("ol", items), class_="pair")


def _score(score: float, correct: bool) -> Html:
    mark = tag("b", "✓", title="the true one") if correct else None
    return tag("span", mark, f"{score:.2f}", class_="score")


def _rank(rank: int) -> Html:
    return tag("p", "found first" if rank == 1 else f"true one at rank {rank}", class_="rank")
