"""Around the cuts: texts on either side, and what judged texts say of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from lavis_lite import registry
from lavis_lite.data.files import images
from lavis_lite.io.redaction import REDACTED
from lavis_lite.projects.blip.capfilt.cuts import share
from lavis_lite.projects.blip.capfilt.reading import read_job
from lavis_lite.report import Chart, Example, Line, Section, gallery, line_chart, side_by_side
from lavis_lite.report.tables import Cell, TableRow, render_table

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)
_MOST_CURVES = 4


def around_cuts(found: dict[str, Any]) -> Iterator[Section]:
    """A section for each rule that cuts a score: the texts next to the cut, with their images."""
    pictures: Pictures | None = None
    for rule, own in zip(found["rules"], found["counts"]["examples"], strict=True):
        near = [*own["above"], *own["below"]]
        if not near:
            continue
        pictures = pictures or Pictures(Path(found["records"]))
        examples = [
            Example(
                pictures[one["index"]],
                one["text"],
                reference=f"{one['key']}, {one['source']}",
                remark=f"{rule['score']} {one['score']:.4g}"
                + ("" if one["chosen"] else ": not chosen"),
            )
            for one in sorted(near, key=lambda one: -one["score"])
        ]
        note = f"The texts nearest to {rule['limit']:.6g}, the best first: is the cut right?"
        yield Section(f"Around the cut: {rule['title']}", gallery(examples), note)


class Pictures:
    """Images of a run's source by row; None where one cannot be had."""

    def __init__(self, records: Path) -> None:
        self._rows: Any = None
        source = read_job(records)["source"]
        if REDACTED in str(source):
            return
        try:
            self._rows = registry.build("dataset", source)
        except (ValueError, LookupError, OSError) as error:
            log.warning("no images in the report: %s", error)

    def __getitem__(self, index: int) -> Image.Image | None:
        if self._rows is None:
            return None
        try:
            decode = getattr(self._rows, "decode", images.decode)
            return decode(self._rows[index]["image"])
        except (ValueError, LookupError, OSError) as error:
            log.warning("no image of row %d in the report: %s", index, error)
            return None


def judged(found: dict[str, Any]) -> Section | None:
    """The section on precision, recall and ROC, by people's labels and by the source's truth."""
    counts = found["counts"]
    rows, lines = [], []
    if counts["judged"]:
        fits = numpy.array([one["fits"] for one in counts["judged"]])
        chosen = numpy.array([one["chosen"] for one in counts["judged"]])
        rows.append(_row("texts that people judged", fits, chosen))
        for name in _deciding(found):
            scores = [one["scores"][name] for one in counts["judged"]]
            known = numpy.array([one is not None for one in scores])
            values = numpy.array([one for one in scores if one is not None], float)
            if len(values) and len(numpy.unique(fits[known])) == 2:
                lines.append(_curve(f"{name}, people", *_exact(values, fits[known])))
    if truth := counts["truth"]:
        fits = numpy.repeat([True, True, False, False], _four(truth))
        chosen = numpy.repeat([True, False, True, False], _four(truth))
        rows.append(_row("web texts, by the source's truth", fits, chosen))
        for name in _deciding(found):
            own = truth["histograms"][name]
            right, wrong = (numpy.array(own[kind][::-1]) for kind in ("right", "wrong"))
            if right.sum() and wrong.sum():
                lines.append(_curve(f"{name}, truth", right, wrong))
    if not rows:
        return None
    head = ["judged", "texts", "fit", "precision", "recall"]
    parts = [render_table(head, rows, "Shares with their intervals of 95 %")]
    if lines:
        chance = Line("by chance", [(0.0, 0.0), (1.0, 1.0)], 5)
        coloured = [Line(one.name, one.points, n % 5) for n, one in enumerate(lines)]
        title = "Fitting texts kept, by threshold"
        axis = "share of the others kept"
        parts.append(line_chart(Chart(title, [*coloured, chance], x=axis, smooth=False)))
    note = "People judge more texts near a cut than elsewhere; these shares are of what was judged."
    return Section("Judged texts", side_by_side(parts, "column"), note)


def _deciding(found: dict[str, Any]) -> list[str]:
    """Return the few scores that the selection went by."""
    names = [*(rule["score"] for rule in found["rules"]), found["keep"]["by"]]
    return (
        list(dict.fromkeys(name for name in names if name))[:_MOST_CURVES] or [*found["scores"]][:1]
    )


def _four(truth: dict[str, Any]) -> list[int]:
    right, wrong = truth["right_chosen"], truth["wrong_chosen"]
    return [right, truth["right"] - right, wrong, truth["wrong"] - wrong]


def _row(name: str, fits: numpy.ndarray, chosen: numpy.ndarray) -> TableRow:
    right = int((fits & chosen).sum())
    cells = [Cell(f"{len(fits):,}"), Cell(f"{int(fits.sum()):,}")]
    for whole in (int(chosen.sum()), int(fits.sum())):
        own = share(right, whole)
        text = "–" if own.value is None else f"{own.value:.3f} ({own.low:.3f} to {own.high:.3f})"
        cells.append(Cell(text))
    return TableRow(name, cells)


def _exact(values: numpy.ndarray, fits: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return how many of either kind have each score, from the best down."""
    scores = numpy.unique(values)[::-1]
    same = values[:, None] == scores
    return same[fits].sum(0), same[~fits].sum(0)


def _curve(name: str, right: numpy.ndarray, wrong: numpy.ndarray) -> Line:
    """The receiver operating characteristic of counts by score, from the best score down."""
    y, x = (numpy.append(0, numpy.cumsum(own)) / own.sum() for own in (right, wrong))
    area = float((numpy.diff(x) * (y[1:] + y[:-1]) / 2).sum())
    return Line(f"{name} (area {area:.3f})", list(zip(x.tolist(), y.tolist(), strict=True)))
