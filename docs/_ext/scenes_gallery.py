"""Draws the contact sheet of the embedded data before the pages are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def draw(app: Sphinx) -> None:
    """Write ``_generated/scenes.png``."""
    from lavis_lite.data import scenes

    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    scenes.contact_sheet().save(folder / "scenes.png")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
