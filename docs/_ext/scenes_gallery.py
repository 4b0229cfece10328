"""Draws the contact sheet of the embedded data before the pages are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx


def draw(app: Sphinx) -> None:
    """Write ``_generated/scenes_<split>.png`` for the splits that the gallery shows."""
    from lavis_lite.data.scenes.captions import Scenes
    from tools.contact_sheet import contact_sheet

    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for split in ("human", "web"):
        contact_sheet(Scenes(split=split), range(12), str(folder / f"scenes_{split}.png"))
    hard = Scenes(split="web", level="hard", image_size=128)
    contact_sheet(hard, range(6), str(folder / "scenes_hard.png"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
