"""Galleries of images with a model's captions and search results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lavis_lite.report.render import Html, render

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
    """Return cards in a grid."""
    return render("gallery.html.jinja", examples=examples)


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
    """Return a row per query: the text, then the images."""
    return render("queries.html.jinja", texts=queries, images=[])


def image_queries(queries: Sequence[ImageQuery]) -> Html:
    """Return a card per query: the image beside the texts."""
    return render("queries.html.jinja", texts=[], images=queries)
