"""The directive ``scenes-sheet``: pictures of the embedded data with their captions.

    .. scenes-sheet:: web
       :rows: 12
       :level: normal
       :alt: twelve small pictures

The sheet is drawn below the build's own folder and stands in the page itself, so that a build
writes nothing beside the sources.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class ScenesSheet(SphinxDirective):
    """The contact sheet of a split's first rows; the argument is the split."""

    required_arguments = 1
    option_spec = {
        "rows": directives.positive_int,
        "level": directives.unchanged,
        "image-size": directives.positive_int,
        "alt": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        from lavis_lite.data.scenes.captions import Scenes
        from tools.contact_sheet import contact_sheet

        split = self.arguments[0]
        names = {"level": "level", "image-size": "image_size"}
        given = {names[key]: value for key, value in self.options.items() if key in names}
        file = Path(
            self.env.doctreedir, f"scenes_{'_'.join(map(str, [split, *given.values()]))}.png"
        )
        contact_sheet(Scenes(split=split, **given), range(self.options["rows"]), str(file))
        address = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
        return [nodes.image(uri=address, alt=self.options["alt"], width="100%")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("scenes-sheet", ScenesSheet)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
