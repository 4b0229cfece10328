"""The page of a report: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lavis_lite.io.files import whole_file
from lavis_lite.io.redaction import redacted_urls
from lavis_lite.report.environment import environment as here
from lavis_lite.report.render import Html, printable, render
from lavis_lite.report.tables import key_values


@dataclass(frozen=True)
class Section:
    """A titled part of the page; ``note`` says what one sees. A body that is a string is text."""

    title: str
    body: Html | str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """A large figure at the top of the page: ``72.4`` ``%`` with what it is and was ``before``."""

    value: str
    label: str
    unit: str = ""
    before: str = ""


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
    made = render("made.html.jinja", command=command, facts=key_values(facts))
    sections = [*sections, Section("How this was made", made)]
    page = render(
        "page.html.jinja",
        title=title,
        summary=summary,
        headline=headline,
        sections=sections,
        anchors=_anchors([section.title for section in sections]),
    )
    text = printable(redacted_urls(page))  # pages are sent around
    path = Path(path)
    with whole_file(path) as temporary:
        temporary.write_text(text, "utf-8")
    return str(path)


def _anchors(titles: Sequence[str]) -> list[str]:
    anchors: list[str] = []
    for title in titles:
        anchor = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        while anchor in anchors:
            anchor += "-2"
        anchors.append(anchor)
    return anchors
