"""The reports' theme as a style of matplotlib.

Charts are drawn in the colours of the light theme. Each stands for a variable of the page's style,
which takes its place in the SVG, so that a chart follows its page into the dark.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

COLOURS = ("#0d6b68", "#cc6a1f", "#5d52b5", "#9a7a06", "#b23a6f", "#2f74c0")
NUM_COLOURS = len(COLOURS)
INK, MUTED, LINE, CARD = "#1f2024", "#6c6b68", "#e3e0d9", "#ffffff"
VARIABLES = {
    **{colour: f"--c{number}" for number, colour in enumerate(COLOURS)},
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    CARD: "--card",
}  # of charts.css
FONT_SIZE = 11  # in units of the picture, which are pixels where it has its own size

THEME = {
    "font.family": "DejaVu Sans",  # comes with matplotlib; wide: what it fits in, others do, too
    "font.size": FONT_SIZE,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_SIZE,
    "axes.linewidth": 1,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.0,
    "axes.ymargin": 0.06,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "lines.linewidth": 2,
    "lines.markersize": 6,
    "xtick.bottom": False,
    "xtick.color": MUTED,
    "xtick.labelsize": FONT_SIZE,
    "ytick.left": False,
    "ytick.color": MUTED,
    "ytick.labelsize": FONT_SIZE,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "lavis_lite",  # the same chart is the same file
}


def colour(number: int) -> str:
    """Return one of the six colours; they begin anew after the last."""
    return COLOURS[number % NUM_COLOURS]


@contextmanager
def theme() -> Iterator[None]:
    """Draw in the reports' theme, whatever the user's matplotlib is set to."""
    import matplotlib.style

    with matplotlib.style.context(THEME, after_reset=True):
        yield
