"""The page about a run: what was kept, how sure the filter was, and what it looks like."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator
from typing import Any

from lavis_lite import registry, report
from lavis_lite.data import images
from lavis_lite.data.bootstrapped import RECORDS
from lavis_lite.projects.blip.capfilt.config import CapfiltConfig
from lavis_lite.projects.blip.capfilt.job import Folder
from lavis_lite.projects.blip.capfilt.records import Record
from lavis_lite.projects.blip.capfilt.stats import NUM_BARS, RANGES
from lavis_lite.report import Column, Example, Headline, Section
from lavis_lite.report.markup import Html, join, tag
from lavis_lite.runners.folder import read_json

log = logging.getLogger(__name__)
_SHARDS_LOOKED_AT = 20
_RECORDS_LOOKED_AT = 5000
_CARDS = 12
_MOST_VALUES = 50_000  # in a histogram, whose counts are drawn as shares
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
    """What was kept, scores, examples, what was set aside, and speed."""
    records = list(itertools.islice(_sample(folder, total["shards"]), _RECORDS_LOOKED_AT))
    pictures = _Pictures(config)
    found = [
        _kept(total),
        _scores(config, total),
        *_galleries(records, pictures),
        _quarantine(folder, total),
        _throughput(folder),
    ]
    return [section for section in found if section is not None]


def _headline(total: dict[str, Any]) -> list[Headline]:
    found = []
    for origin, label in (("web", "web texts kept"), ("synthetic", "synthetic texts kept")):
        if total[origin]["texts"]:
            found.append(Headline(_percent(total[origin]), label, "%"))
    share = 100 * total["images_with_a_text"] / max(1, total["images"])
    found.append(Headline(f"{share:.1f}", "images with a text afterwards", "%"))
    return found


def _percent(part: dict[str, Any]) -> str:
    return f"{100 * part['kept'] / max(1, part['texts']):.1f}"


def _kept(total: dict[str, Any]) -> Section:
    rows = {}
    for origin in ("web", "synthetic"):
        part = total[origin]
        if part["texts"]:
            rows[f"{origin} texts"] = _rate(part) | {
                "empty": part["empty"],
                "repeated": part["repeated"],
            }
    for label, part in sorted(total["labels"].items()):
        rows[f"web texts known to be: {label}"] = _rate(part)
    columns = [
        Column("texts", "texts", digits=0, better=0),
        Column("kept", "kept", digits=0, better=0),
        Column("share", "kept, %", better=0),
        Column("empty", "empty", digits=0, better=0),
        Column("repeated", "repeats", digits=0, better=0),
    ]
    note = "A text is kept when the filter finds that it fits its image; both may be."
    if total["keys_in_several_shards"]:
        note += f" {total['keys_in_several_shards']:,} samples have the key of another one."
    return Section("What was kept", report.metric_table(columns, rows), note)


def _rate(part: dict[str, Any]) -> dict[str, float | None]:
    share = 100 * part["kept"] / max(1, part["texts"])
    return {"texts": part["texts"], "kept": part["kept"], "share": share}


def _scores(config: CapfiltConfig, total: dict[str, Any]) -> Section | None:
    if config.filter is None:
        return None
    low, high = RANGES[config.filter.score]
    series = {
        origin: _values(total[origin]["histogram"], low, high)
        for origin in ("web", "synthetic")
        if sum(total[origin]["histogram"])
    }
    limit = config.filter.limit
    histogram = report.Histogram(
        "Scores of texts",
        series,
        low=low,
        high=high,
        threshold=None if limit is None else (limit, f"kept above {limit:g}"),
        x="probability of a match" if config.filter.score == "itm" else "cosine similarity",
    )
    chart = tag("div", report.histogram_chart(histogram), class_="charts")
    body = join(report.legend(list(series)), chart)
    return Section("Scores", body, "Shares of the web's texts and of the synthetic ones.")


def _values(counts: list[int], low: float, high: float) -> list[float]:
    """Values with about these counts, no more than can be drawn in a moment."""
    scale = min(1.0, _MOST_VALUES / max(1, sum(counts)))
    middle = [low + (bar + 0.5) * (high - low) / NUM_BARS for bar in range(NUM_BARS)]
    return [value for value, n in zip(middle, counts, strict=True) for _ in range(round(n * scale))]


def _sample(folder: Folder, num_shards: int) -> Iterator[Record]:
    """Records of some shards, evenly spread."""
    step = max(1, num_shards // _SHARDS_LOOKED_AT)
    for shard in range(0, num_shards, step):
        with folder.file(shard, RECORDS).open(encoding="utf-8") as file:
            for line in itertools.islice(file, _RECORDS_LOOKED_AT // _SHARDS_LOOKED_AT):
                yield json.loads(line)


class _Pictures:
    """Images of the source by row; None where one cannot be had."""

    def __init__(self, config: CapfiltConfig) -> None:
        self._rows = registry.build("dataset", config.data.source.spec)
        self._decode = getattr(self._rows, "decode", images.decode)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._decode(self._rows[index]["image"])
        except (ValueError, LookupError, OSError) as error:
            log.warning("no image of row %d in the report: %s", index, error)
            return None


def _galleries(records: list[Record], pictures: _Pictures) -> Iterator[Section]:
    both = [r for r in records if any(r["kept"]["synthetic"]) and not r["kept"]["web"]]
    written = [r for r in records if r["synthetic"] and r["scores"]["web"] is not None]
    choices = (
        (
            "Replaced",
            "The web's text was rejected, a synthetic one was kept: the widest gaps in score.",
            sorted(both, key=_gap, reverse=True),
        ),
        (
            "Captions rejected",
            "The web's text fits better than what the captioner wrote.",
            sorted((r for r in written if not any(r["kept"]["synthetic"])), key=_gap),
        ),
        (
            "Kept together",
            "Both texts fit, and stay as two pairs.",
            [r for r in records if r["kept"]["web"] and any(r["kept"]["synthetic"])],
        ),
        (
            "Lost",
            "No text of these images was kept.",
            [r for r in records if not r["kept"]["web"] and not any(r["kept"]["synthetic"])],
        ),
    )
    for title, note, chosen in choices:
        if chosen:
            cards = [card for r in chosen[: _CARDS // 2] for card in _cards(r, pictures)]
            yield Section(title, report.gallery(cards[:_CARDS]), note)


def _gap(record: Record) -> float:
    """How much better the best synthetic text fits than the web's."""
    best = max((s for s in record["scores"]["synthetic"] if s is not None), default=0.0)
    return best - (record["scores"]["web"] or 0.0)


def _cards(record: Record, pictures: _Pictures) -> Iterator[Example]:
    """The web's text and the best synthetic one of an image, each a card."""
    image = pictures[record["index"]]
    scores, kept, reason = record["scores"], record["kept"], record["reason"]
    yield Example(
        image,
        record["web_text"],
        match=scores["web"],
        right=kept["web"],
        remark=f"web: {reason['web']}",
    )
    if record["synthetic"]:
        place = max(range(len(record["synthetic"])), key=lambda n: scores["synthetic"][n] or 0.0)
        yield Example(
            image,
            record["synthetic"][place],
            match=scores["synthetic"][place],
            right=kept["synthetic"][place],
            remark=f"synthetic: {reason['synthetic'][place]}",
        )


def _quarantine(folder: Folder, total: dict[str, Any]) -> Section | None:
    problems = {f"file {n}": problem for n, problem in enumerate(total["problems"], 1)}
    if not total["unreadable"] and not problems:
        return None
    counts = sorted(total["unreadable"].items(), key=lambda item: -item[1])
    with folder.quarantine.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in itertools.islice(file, _QUARANTINE_ROWS)]
    listed = {f"{row['key']} (shard {row['shard']})": row["reason"] for row in rows}
    body = join(
        report.key_values(dict(counts), "samples by reason") if counts else None,
        report.key_values(listed, f"the first {len(rows)} of {folder.quarantine.name}")
        if rows
        else None,
        report.key_values(problems, "files that are not read in full") if problems else None,
    )
    return Section("Quarantine", body, "Samples that were read and set aside.")


def _throughput(folder: Folder) -> Section | None:
    stages: dict[str, float] = {}
    num_images = 0
    for line in _timings(folder):
        num_images += line["images"]
        for stage, seconds in line["seconds"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    if not num_images:
        return None
    rows = {
        stage: {"seconds": seconds, "speed": num_images / seconds if seconds else None}
        for stage, seconds in stages.items()
    }
    columns = [
        Column("seconds", "seconds of all workers", better=0),
        Column("speed", "images/s of one worker", better=0),
    ]
    table: Html = report.metric_table(columns, rows)
    return Section("Throughput", table, f"{num_images:,} images; `read` is waiting for them.")


def _timings(folder: Folder) -> Iterator[dict[str, Any]]:
    if folder.timings.is_file():
        with folder.timings.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:  # cut when its writer was killed
                    continue
