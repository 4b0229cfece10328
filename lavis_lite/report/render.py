"""Templates of pages and of their parts: all text in them is escaped, whoever wrote it."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup as Html

from lavis_lite.report.pictures import data_uri, is_tiny

__all__ = ["Html", "printable", "render", "side_by_side"]

TEMPLATES = Path(__file__).parent / "templates"
# Neither HTML nor SVG may hold control characters, and no UTF-8 file lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]")


def render(template: str, /, *, folder: Path | None = None, **values: object) -> Html:
    """Return a template, filled in.

    Args:
        template: the file's name.
        folder: where it is looked for before the folder of the reports' own templates, which it may
            import (``macros.html.jinja``); None has only the latter.
        values: the template's variables. Strings are escaped where they are put in; only ``Html``,
            as this function returns it, is markup.

    Raises:
        jinja2.UndefinedError: a variable of the template is not among the values.
    """
    return Html(_environment(folder).get_template(template).render(values))


@functools.cache
def _environment(folder: Path | None) -> jinja2.Environment:
    folders = [TEMPLATES] if folder is None else [folder, TEMPLATES]
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["data_uri"] = data_uri
    made.tests["tiny"] = is_tiny
    return made


def side_by_side(blocks: Sequence[Html], kind: str) -> Html:
    """Return blocks in a grid of the page: ``charts``, ``tables``, or a gallery's cards."""
    return render("side_by_side.html.jinja", blocks=blocks, kind=kind)


def printable(text: str) -> str:
    """Return a text without control characters and lone surrogates, which become U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text)
