"""The page of a report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavis_lite.io.redaction import redacted_urls
from lavis_lite.report.environment import environment as here
from lavis_lite.report.markup import Html, join, tag
from lavis_lite.report.style import STYLE
from lavis_lite.report.tables import key_values


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``note`` says what one sees."""

    title: str
    body: Html
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A large figure at the top of the page: ``72.4`` ``%`` with what it is."""

    value: str
    label: str
    unit: str = ""


def write_report(
    sections: Sequence[Section],
    path: str | os.PathLike,
    title: str,
    command: str = "",
    environment: Mapping[str, str] | None = None,
    *,
    headline: Sequence[Headline] = (),
    summary: str = "",
) -> str:
    """Write a self-contained page.

    Everything that is not ``Html`` is escaped. The page loads nothing, so it works from a disk, an
    e-mail or a web server, in light and dark.

    Args:
        sections: in order.
        path: of the HTML file; it appears whole or not at all.
        title: of the page.
        command: what made it.
        environment: names and values for the last section; None describes this machine.
        headline: a few figures for the top.
        summary: a sentence below the title.

    Returns:
        The path.
    """
    facts = {**(here() if environment is None else environment)}
    facts.setdefault("written", time.strftime("%Y-%m-%d %H:%M"))
    made = join(tag("pre", command) if command else None, key_values(facts))
    sections = [*sections, Section("How this was made", made)]
    page = join(Html("<!doctype html>\n"), _page(sections, title, headline, summary))
    text = redacted_urls(page)  # pages are sent around
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)
    return str(path)


def _page(
    sections: Sequence[Section], title: str, headline: Sequence[Headline], summary: str
) -> Html:
    # The page runs and fetches nothing, whatever a caption says: the browser holds it to that.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    anchors = _anchors([section.title for section in sections])
    links = [
        tag("a", section.title, href=f"#{anchor}")
        for section, anchor in zip(sections, anchors, strict=True)
    ]
    top = tag(
        "header",
        tag(
            "div",
            tag("p", "lavis_lite report", class_="eyebrow"),
            tag("h1", title),
            tag("p", summary, class_="summary") if summary else None,
            _headline(headline),
            tag("nav", links),
        ),
    )
    parts = [
        tag(
            "section",
            tag("h2", section.title),
            tag("p", section.note, class_="note") if section.note else None,
            section.body,
            id=anchor,
        )
        for section, anchor in zip(sections, anchors, strict=True)
    ]
    foot = tag("footer", tag("div", "One file; it loads nothing and can be sent as it is."))
    return tag("html", head, tag("body", top, tag("main", parts), foot), lang="en")


def _headline(figures: Sequence[Headline]) -> Html | None:
    if not figures:
        return None
    cells = []
    for figure in figures:
        unit = tag("small", figure.unit) if figure.unit else None
        cells.append(tag("div", tag("dd", figure.value, unit), tag("dt", figure.label)))
    return tag("dl", cells, class_="headline")


def _anchors(titles: Sequence[str]) -> list[str]:
    anchors: list[str] = []
    for title in titles:
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        while anchor in anchors:
            anchor += "-2"
        anchors.append(anchor)
    return anchors
