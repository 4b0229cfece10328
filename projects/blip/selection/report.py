"""The page about a selection: what each rule kept, how rules overlap, and where the cuts lie."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from lavis_lite import report
from lavis_lite.io.json_files import read_json
from lavis_lite.projects.blip.selection.layout import SelectionFolder, read_manifest
from lavis_lite.projects.blip.selection.report_cuts import around_cuts, judged
from lavis_lite.report import (
    Headline,
    Histogram,
    Section,
    environment,
    histogram_chart,
    side_by_side,
)
from lavis_lite.report.charts import Part, divided_bars
from lavis_lite.report.tables import Cell, TableRow, render_table

log = logging.getLogger(__name__)
_MOST_VALUES = 5_000  # in a histogram, whose counts are drawn as shares
_ORIGINS = ("web", "synthetic")


def write(folder: SelectionFolder, name: str) -> str:
    """Write the page into a finished selection's folder; returns its path."""
    found = read_manifest(folder.path)
    counts = found["counts"]
    total, chosen = sum(counts["texts"].values()), sum(counts["chosen"].values())
    headline = [
        Headline(f"{chosen:,}", f"texts chosen, of {total:,}"),
        Headline(
            f"{100 * counts['images_with_a_text'] / max(1, counts['images']):.1f}",
            f"of {counts['images']:,} images have a text",
            "%",
        ),
    ]
    return report.write_report(
        sections(folder, found),
        folder.path / name,
        "Selection: texts chosen by their scores",
        command=read_json(folder.start).get("command", ""),
        environment=environment(gpu=False),
        headline=headline,
        summary=f"Of the records in {found['records']}; {len(found['rules'])} rules.",
    )


def sections(folder: SelectionFolder, found: dict[str, Any]) -> list[Section]:
    """Return the sections on rules, scores, judged texts and examples."""
    candidates = [
        _kept(found),
        _rules(found),
        _together(found),
        _scores(found),
        judged(found),
        *around_cuts(found),
    ]
    return [section for section in candidates if section is not None]


def _dropped(found: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    """Every way to be dropped, in order, with the numbers by origin."""
    counts = found["counts"]
    passed, chosen = counts["passed"], counts["chosen"]
    beaten = {origin: passed[origin] - chosen[origin] for origin in _ORIGINS}
    return [
        ("empty or repeated", counts["unsound"]),
        *((rule["title"], own) for rule, own in zip(found["rules"], counts["rules"], strict=True)),
        (f"keep: {found['keep']['title']}", beaten),
    ]


def _kept(found: dict[str, Any]) -> Section:
    counts = found["counts"]
    rows = {}
    for origin in _ORIGINS:
        parts = [Part("chosen", counts["chosen"][origin], 0)]
        parts += [
            Part(title, own[origin], None if number == 0 else number)
            for number, (title, own) in enumerate(_dropped(found))
        ]
        if counts["texts"][origin]:
            rows[f"{origin} texts"] = parts
    by_source = {
        source: [Part("chosen", own["chosen"], 0), Part("dropped", own["texts"] - own["chosen"])]
        for source, own in sorted(counts["sources"].items())
    }
    charts = [divided_bars("Texts by origin", rows), divided_bars("Texts by source", by_source)]
    return Section("What was chosen", side_by_side(charts, "charts"), "Chosen ones are coloured.")


def _rules(found: dict[str, Any]) -> Section:
    left = dict(found["counts"]["texts"])
    rows = [TableRow("all texts", _numbers(left, None))]
    for title, own in _dropped(found):
        left = {origin: left[origin] - own[origin] for origin in _ORIGINS}
        rows.append(TableRow(title, _numbers(left, own)))
    head = ["rule", "dropped", "web left", "synthetic left", "texts left"]
    cuts = {rule["title"]: ", ".join(_cuts(rule)) for rule in found["rules"] if list(_cuts(rule))}
    tables = [render_table(head, rows, "Each rule sees what those above it left")]
    if cuts:
        tables.append(report.key_values(cuts, "Cuts that were found"))
    return Section("Rules in order", side_by_side(tables, "column"))


def _numbers(left: dict[str, int], dropped: dict[str, int] | None) -> list[Cell]:
    gone = Cell("–", "none") if dropped is None else Cell(f"{sum(dropped.values()):,}")
    return [
        gone,
        *(Cell(f"{left[origin]:,}") for origin in _ORIGINS),
        Cell(f"{sum(left.values()):,}"),
    ]


def _cuts(rule: dict[str, Any]) -> Iterator[str]:
    for name, own in rule.get("strata", {}).items():
        about = f"{name}: " if name else ""
        yield f"{about}{own['kept']:,} of {own['of']:,}, from {own['limit']:.6g}"
    if "precision" in rule:
        value, low, high, _ = rule["precision"]
        yield (
            f"from {rule['limit']:.6g}: precision {value:.3f} ({low:.3f} to {high:.3f}), "
            f"by {rule['judged']:,} judged texts"
        )


def _together(found: dict[str, Any]) -> Section | None:
    if len(found["rules"]) < 2:
        return None
    titles = [rule["title"] for rule in found["rules"]]
    counts = found["counts"]
    rows = [
        TableRow(title, [Cell(f"{n:,}") for n in (*counts["together"][place], alone)])
        for place, (title, alone) in enumerate(zip(titles, counts["alone"], strict=True))
    ]
    table = render_table(["failed", *titles, "this one alone"], rows)
    note = (
        "Texts that fail both rules, whatever their order; a rule with itself: all that fail it. "
        "Shares and duplicates are those among the texts that come to their rule."
    )
    return Section("Rules together", table, note)


def _scores(found: dict[str, Any]) -> Section | None:
    charts = []
    for name, bars in found["counts"]["histograms"].items():
        low, high = found["scores"][name]["low"], found["scores"][name]["high"]
        series = {
            which: values_of(bars[which], low, high)
            for which in ("all", "chosen")
            if sum(bars[which])
        }
        limits = [
            r["limit"] for r in found["rules"] if r["score"] == name and r["limit"] is not None
        ]
        cut = (limits[-1], f"cut at {limits[-1]:.4g}") if limits else None
        charts.append(histogram_chart(Histogram(name, series, low, high, threshold=cut, x=name)))
    if not charts:
        return None
    return Section("Scores", side_by_side(charts, "charts"), "Shares of all and of chosen texts.")


def values_of(counts: list[int], low: float, high: float) -> list[float]:
    """Return values with about these counts, no more than can be drawn in a moment."""
    scale = min(1.0, _MOST_VALUES / max(1, sum(counts)))
    width = (high - low) / len(counts)
    return [
        low + (bar + 0.5) * width
        for bar, number in enumerate(counts)
        for _ in range(round(number * scale))
    ]


def emptying(found: dict[str, Any]) -> str:
    """Say which rule left nothing, with the range of its score."""
    left = sum(found["counts"]["texts"].values())
    for place, (title, own) in enumerate(_dropped(found)):
        left -= sum(own.values())
        if left == 0:
            rule = found["rules"][place - 1] if 0 < place <= len(found["rules"]) else {}
            score = rule.get("score")
            span = found["scores"].get(score)
            about = f"; {score} is from {span['low']:g} to {span['high']:g}" if span else ""
            return f"nothing is left after {title!r}{about}"
    return "there were no texts"
