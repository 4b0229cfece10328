"""The page about a run: what was kept, how sure the filter was, and what it looks like."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from lavis_lite import report
from lavis_lite.projects.blip.capfilt import report_scores
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.job import Folder
from lavis_lite.projects.blip.capfilt.layout import RECORDS
from lavis_lite.projects.blip.capfilt.records import Record
from lavis_lite.projects.blip.capfilt.report_pairs import galleries, is_right
from lavis_lite.projects.blip.capfilt.report_scores import values
from lavis_lite.projects.blip.capfilt.stats import RANGES
from lavis_lite.projects.blip.capfilt.throughput import read_timings
from lavis_lite.report import Chart, Column, Headline, Html, Line, Section, line_chart, side_by_side
from lavis_lite.report.charts import Part, divided_bars
from lavis_lite.runners.run_folder import read_json

_SHARDS_LOOKED_AT = 20
_RECORDS_LOOKED_AT = 5000
_QUARANTINE_ROWS = 30


def write(folder: Folder, config: CapfiltConfig, total: dict[str, Any], name: str) -> str:
    """Write the page into the run's folder; returns its path."""
    return report.write_report(
        sections(folder, config, total),
        folder.path / name,
        "CapFilt: texts written, texts kept",
        command=read_json(folder.path / "run.json").get("command", ""),
        headline=_headline(total),
        summary=f"{total['read']:,} samples of {config.data.source.name} in "
        f"{total['shards']:,} shards.",
    )


def sections(folder: Folder, config: CapfiltConfig, total: dict[str, Any]) -> list[Section]:
    """Return the sections on kept texts, scores, examples, samples set aside, and speed."""
    records = list(itertools.islice(_sample(folder, total["shards"]), _RECORDS_LOOKED_AT))
    candidates = [
        _kept(total),
        _scores(config, total, records),
        *report_scores.sections(total, config.scorers),
        *galleries(records, config),
        _quarantine(folder, total),
        _throughput(folder),
    ]
    return [section for section in candidates if section is not None]


def _headline(total: dict[str, Any]) -> list[Headline]:
    headlines = []
    for origin, label in (("web", "web texts kept"), ("synthetic", "synthetic texts kept")):
        if total[origin]["texts"]:
            of = f"{label}, of {total[origin]['texts']:,}"
            headlines.append(Headline(_percent(total[origin]), of, "%"))
    share = 100 * total["images_with_a_text"] / max(1, total["images"])
    label = f"images with a text afterwards, of {total['images']:,}"
    headlines.append(Headline(f"{share:.1f}", label, "%"))
    truth = total.get("truth") or {}
    for name, label in (
        ("precision", "of the web texts kept are right"),
        ("recall", "of the right web texts were kept"),
    ):
        if truth.get(name) is not None:
            headlines.append(Headline(f"{100 * truth[name]:.1f}", label, "%"))
    return headlines


def _percent(part: dict[str, Any]) -> str:
    return f"{100 * part['kept'] / max(1, part['texts']):.1f}"


def _kept(total: dict[str, Any]) -> Section:
    rows = {
        f"{origin} texts": [
            Part("kept", part["kept"], 0),
            Part("rejected", part["texts"] - part["kept"] - part["empty"] - part["repeated"]),
            Part("empty", part["empty"], 4),
            Part("repeats another text of the image", part["repeated"], 3),
        ]
        for origin in ("web", "synthetic")
        if (part := total[origin])["texts"]
    }
    known = {
        label: [Part("kept", part["kept"], 0), Part("rejected", part["texts"] - part["kept"])]
        for label, part in sorted(total["labels"].items())
    }
    note = "A text is kept (coloured) when the filter finds that it fits its image; both may be."
    if total["keys_in_several_shards"]:
        note += f" {total['keys_in_several_shards']:,} samples have the key of another one."
    charts = [divided_bars("Texts by where they are from", rows)]
    if known:
        charts.append(divided_bars("Web texts by what they are known to be", known))
    return Section("What was kept", side_by_side(charts, "charts"), note)


def _scores(config: CapfiltConfig, total: dict[str, Any], records: list[Record]) -> Section | None:
    if config.filter is None:
        return None
    low, high = RANGES[config.filter.score]
    limit = config.filter.limit
    shared: dict[str, Any] = {
        "low": low,
        "high": high,
        "threshold": None if limit is None else (limit, f"kept above {limit:g}"),
        "x": "probability of a match" if config.filter.score == "itm" else "cosine similarity",
    }
    origins = {
        origin: values(total[origin]["histogram"], low, high)
        for origin in ("web", "synthetic")
        if sum(total[origin]["histogram"])
    }
    charts = [
        report.histogram_chart(report.Histogram("Web and synthetic texts", origins, **shared))
    ]
    if config.data.label is not None and config.data.right:
        known: dict[str, list[float]] = {"right": [], "wrong": []}
        for record in records:
            if (score := record["scores"]["web"]) is not None:
                known["right" if is_right(record, config) else "wrong"].append(score)
        title = "Web texts, right and wrong ones"
        charts.append(report.histogram_chart(report.Histogram(title, known, **shared)))
    if "roc" in (truth := total.get("truth") or {}):
        charts.append(_curve(truth))
    body = side_by_side(charts, "charts")
    return Section("Scores", body, "Shares of the texts of each kind.")


def _curve(truth: dict[str, Any]) -> Html:
    title = f"Right web texts kept, by threshold (area {truth['auc']:.3f})"
    points = [(wrong, right) for wrong, right in truth["roc"]]
    lines = [Line("filter", points), Line("by chance", [(0.0, 0.0), (1.0, 1.0)], 5)]
    return line_chart(Chart(title, lines, x="share of the wrong ones kept", smooth=False))


def _sample(folder: Folder, num_shards: int) -> Iterator[Record]:
    """Records of some shards, evenly spread."""
    step = max(1, num_shards // _SHARDS_LOOKED_AT)
    for shard in range(0, num_shards, step):
        with folder.file(shard, RECORDS).open(encoding="utf-8") as file:
            for line in itertools.islice(file, _RECORDS_LOOKED_AT // _SHARDS_LOOKED_AT):
                yield json.loads(line)


def _quarantine(folder: Folder, total: dict[str, Any]) -> Section | None:
    problems = {f"file {n}": problem for n, problem in enumerate(total["problems"], 1)}
    source = total.get("source") or {}
    left_out = source.get("left_out", {})
    if not (total["unreadable"] or problems or left_out or total.get("uncaptioned")):
        return None
    counts = sorted(total["unreadable"].items(), key=lambda item: -item[1])
    with folder.quarantine.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, _QUARANTINE_ROWS)]
    listed = {f"{row['key']} (shard {row['shard']})": row["reason"] for row in rows}
    tables = [
        report.key_values(values, caption)
        for values, caption in (
            (dict(counts), "samples by reason"),
            (_uncaptioned(total), "texts that captioners did not write, by reason"),
            (listed, f"the first {len(rows)} of {folder.quarantine.name}"),
            (problems, "files that are not read in full"),
            (left_out, f"left out of the {source.get('seen', 0):,} entries of the source"),
        )
        if values
    ]
    body = side_by_side(tables, "column")
    return Section("Quarantine", body, "Samples that were set aside or left out.")


def _uncaptioned(total: dict[str, Any]) -> dict[str, int]:
    return {
        f"{captioner}: {reason}": number
        for captioner, reasons in total.get("uncaptioned", {}).items()
        for reason, number in reasons.items()
    }


def _throughput(folder: Folder) -> Section | None:
    found = read_timings(folder)
    if not found.images:
        return None
    parts = [Part(stage, seconds, n) for n, (stage, seconds) in enumerate(found.stages.items())]
    parts.append(Part("other", max(0.0, found.total - sum(found.stages.values()))))
    rows = {
        stage: {"seconds": seconds, "speed": found.images / seconds if seconds else None}
        for stage, seconds in {**found.stages, "all": found.total}.items()
    }
    columns = [
        Column("seconds", "time of all workers", better=0, unit="s"),
        Column("speed", "speed of one worker", better=0, unit="images/s"),
    ]
    body = side_by_side(
        [
            divided_bars("Time by stage", {"all workers": parts}, digits=1, unit=" s"),
            report.metric_table(columns, rows, row_name="stage"),
        ],
        "tables",
    )
    return Section("Throughput", body, f"{found.images:,} images; `read` is waiting for them.")
