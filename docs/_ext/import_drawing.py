"""The directive ``import-drawing``: which part of the package imports which, read from its source.

Parts stand in rows, each row above those that it may import; an arrow that follows from others is
left out (transitive reduction), so that the picture stays legible.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

PACKAGE = Path(__file__).resolve().parents[2] / "lavis_lite"
BOX, GAP, ROW = (112, 30), 24, 66  # width and height of a box, between boxes, between rows


class ImportDrawing(Directive):
    """The drawing, as SVG within the page."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawing(imports_of_parts()), format="html")]


def imports_of_parts() -> dict[str, set[str]]:
    """Part of the package -> the parts that its modules import, inside functions too."""
    parts: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if not part.startswith("__") and part != "projects":  # where projects are found, no code
            parts.setdefault(part, set()).update(_imported(path))
    return {part: (targets & set(parts)) - {part} for part, targets in parts.items()}


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "lavis_lite":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lavis_lite."):
            found.add(str(node.module).split(".")[1])
    return found


def reduced(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that follow from others."""

    def reached(part: str) -> set[str]:
        return imports[part].union(*(reached(target) for target in imports[part]), set())

    return {
        part: {t for t in targets if not any(t in reached(other) for other in targets - {t})}
        for part, targets in imports.items()
    }


def drawing(imports: dict[str, set[str]]) -> str:
    """Boxes in rows by the longest way down, and arrows from each part to what it imports."""

    def level(part: str) -> int:
        return max((level(target) + 1 for target in imports[part]), default=0)

    rows: dict[int, list[str]] = {}
    for part in imports:
        rows.setdefault(level(part), []).append(part)
    width = max(map(len, rows.values())) * (BOX[0] + GAP)
    height = len(rows) * ROW
    places = {
        part: (
            width / 2 + (column - (len(row) - 1) / 2) * (BOX[0] + GAP),
            height - ROW / 2 - number * ROW,
        )
        for number, row in rows.items()
        for column, part in enumerate(row)
    }
    arrows = [
        f'<path d="M {x} {y + BOX[1] / 2} C {x} {y + ROW / 2}, {u} {v - ROW / 2}, '
        f'{u} {v - BOX[1] / 2 - 4}" marker-end="url(#tip)"/>'
        for part, targets in reduced(imports).items()
        for target in sorted(targets)
        for (x, y), (u, v) in [(places[part], places[target])]
    ]
    boxes = [
        f'<rect x="{x - BOX[0] / 2}" y="{y - BOX[1] / 2}" width="{BOX[0]}" height="{BOX[1]}" '
        f'rx="5"/><text x="{x}" y="{y + 4}">{escape(part)}</text>'
        for part, (x, y) in places.items()
    ]
    said = "; ".join(f"{p} imports {', '.join(sorted(t)) or 'nothing'}" for p, t in imports.items())
    return (
        f'<svg class="import-drawing" role="img" viewBox="0 0 {width} {height}">'
        f"<title>Who imports whom</title><desc>{escape(said)}</desc>"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>'
        f"{''.join(arrows)}{''.join(boxes)}</svg>"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("import-drawing", ImportDrawing)
    return {"parallel_read_safe": True}
