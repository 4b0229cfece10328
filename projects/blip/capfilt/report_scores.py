"""The part of a page on scores: of how many texts or images there is each, and how they spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_lite import registry, report
from lavis_lite.projects.blip.capfilt.config import Scorer
from lavis_lite.projects.blip.capfilt.names import Span, scorers, spans
from lavis_lite.projects.blip.capfilt.score_config import CapfiltScoreConfig
from lavis_lite.projects.blip.capfilt.stats import NUM_BARS, Stats
from lavis_lite.report import Section, side_by_side
from lavis_lite.runners.run_folder import read_json

MOST_VALUES = 50_000  # in a histogram, whose counts are drawn as shares


def write(folder: Path, config: CapfiltScoreConfig, total: Stats, name: str) -> str:
    """Write the page of a pass into its output folder; returns its path."""
    return report.write_report(
        sections(total, config.scorers),
        folder / name,
        "CapFilt: scores added",
        command=read_json(folder / "run.json").get("command", ""),
        summary=f"Scores of {total['images']:,} records of {config.records}.",
    )


def sections(total: Stats, listed: Sequence[Scorer]) -> list[Section]:
    """Return a section with a histogram for each score, and one with their counts.

    Args:
        total: counts of all shards.
        listed: the scorers of the config.
    """
    found: dict[str, Stats] = total.get("scores", {})
    if not found:
        return []
    ranges: dict[str, Span] = {}
    for name, one in scorers(listed).items():
        ranges |= spans(name, registry.get("scorer", one.name))
    charts = [
        report.histogram_chart(
            report.Histogram(score, drawn, low=span[0], high=span[1], threshold=None, x=score)
        )
        for score, origins in found.items()
        if (span := ranges.get(score)) and (drawn := dict(_drawn(origins, span)))
    ]
    rows = {
        f"{score}, {origin}": _counted(own)
        for score, origins in found.items()
        for origin, own in origins.items()
        if own["seen"]
    }
    table = report.key_values(rows, "scores, of how many texts or images")
    note = "Shares of the texts of each kind; the bars at the ends hold what lies beyond them."
    parts = [Section("All scores", side_by_side(charts, "charts"), note)] if charts else []
    return [*parts, Section("Scored", table, "Why some have no score stands behind the numbers.")]


def _drawn(origins: Stats, span: tuple[float, float]) -> Iterator[tuple[str, list[float]]]:
    for origin, own in origins.items():
        if sum(own.get("histogram", [])):
            yield origin, values(own["histogram"], *span)


def _counted(own: Stats) -> str:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(own["missing"].items()))
    return f"{own['scored']:,} of {own['seen']:,}" + (f" ({reasons})" if reasons else "")


def values(counts: list[int], low: float, high: float) -> list[float]:
    """Return values with about these counts, no more than can be drawn in a moment."""
    scale = min(1.0, MOST_VALUES / max(1, sum(counts)))
    middle = [low + (bar + 0.5) * (high - low) / NUM_BARS for bar in range(NUM_BARS)]
    return [value for value, n in zip(middle, counts, strict=True) for _ in range(round(n * scale))]


def scored_shares(total: Stats) -> dict[str, Any]:
    """Return the share of texts or images that have each score, in %."""
    shares = {}
    for score, origins in total["scores"].items():
        seen = sum(own["seen"] for own in origins.values())
        scored = sum(own["scored"] for own in origins.values())
        shares[f"{score}_scored"] = round(100 * scored / max(1, seen), 3)
    return shares


def spell(total: Stats) -> str:
    """Return the counts of all scores in words."""
    return ", ".join(
        f"{score} {origin} {own['scored']:,} of {own['seen']:,}"
        for score, origins in total["scores"].items()
        for origin, own in origins.items()
    )
