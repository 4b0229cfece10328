"""Sections that show single images and texts: captions, what was found, and how pairs match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from lavis_lite.report.charts import Histogram, histogram_chart
from lavis_lite.report.gallery import (
    Example,
    FoundImage,
    FoundText,
    ImageQuery,
    TextQuery,
    gallery,
    image_queries,
    text_queries,
)
from lavis_lite.report.page import Section
from lavis_lite.report.render import render, side_by_side
from lavis_lite.report.runs import Evaluated, Pictures, Record, Run

if TYPE_CHECKING:
    from PIL.Image import Image

NUM_EXAMPLES = 24
NUM_QUERIES = 6
T = TypeVar("T")


def captions(
    runs: Sequence[Run], pictures: Pictures, pairs: Sequence[tuple[Run, Run]] = ()
) -> Section | None:
    """Images with the captions of the last run that wrote some, and those of the run before it."""
    run, evaluated = _last(runs, "caption")
    if run is None or evaluated is None or not (rows := evaluated.rows()):
        return None
    facts = _facts(run)
    before = next((before for before, after in pairs if after is run), None)
    earlier = _captions(before)
    matched = _matched(runs)
    examples = [
        _example(
            row,
            facts.get(row["key"]),
            row.get("match", matched.get((row["key"], row["caption"]))),
            pictures.image(evaluated.data, row.get("index")),
            earlier.get(row["key"]),
        )
        for row in evenly(rows, NUM_EXAMPLES)
    ]
    note = f"By {run.name}: {len(examples)} of {len(rows)} images at equal distances, none chosen."
    if before is not None and earlier:
        note += f" Struck out stands what {before.name} wrote where that was another caption."
    if facts:
        note += " ✓ marks captions that state every fact of their image and nothing else."
    if any(example.match is not None for example in examples):
        note += " The bar is the probability, by a matching model, that the caption fits."
    return Section("Captions", gallery(examples), note)


def _facts(run: Run | None) -> dict[str, Record]:
    evaluations = run.evaluations if run else []
    return {row["key"]: row for e in evaluations if e.metric == "facts" for row in e.rows()}


def _captions(run: Run | None) -> dict[str, tuple[str, bool | None]]:
    """key -> caption, and whether it is known to be right."""
    facts = _facts(run)
    return {
        row["key"]: (row["caption"], facts.get(row["key"], {}).get("exact"))
        for e in (run.evaluations if run else [])
        if e.metric == "caption"
        for row in e.rows()
    }


def _example(
    row: Record,
    facts: Record | None,
    match: float | None,
    image: Image | None,
    earlier: tuple[str, bool | None] | None,
) -> Example:
    right, remark = None, ""
    if facts is not None and facts["caption"] == row["caption"]:
        right = facts["exact"]
        if not facts["parsed"]:
            remark = "cannot be read as a description"
        elif facts["wrong"]:
            remark = f"wrong: {_spelled(facts['wrong'])}"
        elif facts["missing"]:
            remark = f"missing: {_spelled(facts['missing'])}"
    return Example(
        image,
        row["caption"],
        reference=next(iter(row["references"]), ""),
        match=match,
        right=right,
        remark=remark,
        earlier=earlier if earlier and earlier[0] != row["caption"] else None,
    )


def _spelled(facts: list[str]) -> str:
    return ", ".join(fact.replace(".", " ").replace("=", " ") for fact in facts)


def _matched(runs: Sequence[Run]) -> dict[tuple[str, str], float]:
    """(key, caption) -> probability that it fits, from runs that judged captions of others."""
    return {
        (row["key"], row["caption"]): row["caption_match"]
        for run in runs
        for evaluated in run.evaluations
        if evaluated.metric == "itm"
        for row in evaluated.rows()
        if "caption_match" in row
    }


def matching(runs: Sequence[Run]) -> Section | None:
    """Probabilities of true and false pairs as histograms, one per run that has them."""
    charts = []
    for run in runs:
        for evaluated in run.evaluations:
            rows = evaluated.rows() if evaluated.metric == "itm" else []
            if rows:
                series = {
                    "true pairs": [row["text_match"] for row in rows],
                    "false pairs": [row["other_text_match"] for row in rows],
                }
                if judged := [row["caption_match"] for row in rows if "caption_match" in row]:
                    series["generated captions"] = judged
                charts.append((run.name, series))
    if not charts:
        return None
    drawn = [
        histogram_chart(
            Histogram(name, series, threshold=(0.5, "decides"), x="probability of a match")
        )
        for name, series in charts
    ]
    note = "How probable the model finds each image's own text, and another image's."
    return Section("Matching", side_by_side(drawn, "charts"), note)


def retrieval(runs: Sequence[Run], pictures: Pictures) -> Section | None:
    """Texts with the images that they find, and images with the texts that they find."""
    run, evaluated = _last(runs, "retrieval")
    if run is None or evaluated is None or not (rows := evaluated.rows()):
        return None
    by_text = [
        TextQuery(
            row["text"],
            [
                FoundImage(
                    pictures.image(evaluated.data, found["index"]),
                    found["score"],
                    found["correct"],
                    str(found["image_id"]),
                )
                for found in row["results"]
            ],
            row["rank"],
        )
        for row in evenly([row for row in rows if row["query"] == "text"], NUM_QUERIES)
    ]
    by_image = [
        ImageQuery(
            pictures.image(evaluated.data, row["index"]),
            [FoundText(f["text"], f["score"], f["correct"]) for f in row["results"]],
            row["rank"],
        )
        for row in evenly([row for row in rows if row["query"] == "image"], NUM_QUERIES)
    ]
    body = render(
        "retrieval.html.jinja",
        by_text=text_queries(by_text),
        by_image=image_queries(by_image),
    )
    note = (
        f"By {run.name}: the five best of the whole test set, best first, with its score (match"
        " logit + cosine). Queries stand at equal distances, none chosen; the true one is marked."
    )
    return Section("Retrieval", body, note)


def _last(runs: Sequence[Run], metric: str) -> tuple[Run | None, Evaluated | None]:
    for run in reversed(runs):
        for evaluated in run.evaluations:
            if evaluated.metric == metric and evaluated.predictions.is_file():
                return run, evaluated
    return None, None


def evenly(items: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` items at equal distances, the first one among them."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]
