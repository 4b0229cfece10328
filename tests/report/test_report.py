"""Reports: escaped, self-contained, complete, and drawn where the numbers say."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavis_lite import registry, report
from lavis_lite.config.schema import EvaluateConfig
from lavis_lite.report import tables
from lavis_lite.report.charts import histograms
from lavis_lite.report.charts import lines as charts
from lavis_lite.report.charts.bars import Part, divided_bars
from lavis_lite.report.charts.ratios import Ratio, ratio_chart
from lavis_lite.report.examples import evenly
from lavis_lite.report.markup import Html, join, tag
from lavis_lite.report.pictures import data_uri

HOSTILE = "\"><script>alert(1)</script><img src=http://evil.example onerror='x'>&amp; \x00 \ud800"
RED = Image.new("RGB", (8, 6), (255, 0, 0))


class Page(HTMLParser):
    """The elements and text of a page; fails on elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, name: str, class_: str = "") -> list[dict[str, str | None]]:
        return [
            attributes
            for element, attributes in self.elements
            if element == name and class_ in (attributes.get("class") or "")
        ]


def page_of(*sections: report.Section, folder: Path, **options: Any) -> Page:
    path = report.write_report(sections, folder / "r.html", "A title", environment={}, **options)
    return Page(Path(path).read_text("utf-8"))


# ---- escaping


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & c", title='"quoted"') == (
        '<p title="&quot;quoted&quot;">a &lt; b &amp; c</p>'
    )
    assert tag("p", tag("b", "x"), None, ["y", Html("<i>z</i>")]) == "<p><b>x</b>y<i>z</i></p>"
    assert tag("img", src="s", hidden=True, alt=None) == '<img src="s" hidden>'
    assert isinstance(join("<"), Html)


def test_hostile_text_stays_text_in_every_part(tmp_path: Path) -> None:
    example = report.Example(RED, HOSTILE, HOSTILE, match=0.5, right=False, remark=HOSTILE)
    found_image = report.FoundImage(RED, 1.0, True, HOSTILE)
    body = join(
        report.gallery([example]),
        report.text_queries([report.TextQuery(HOSTILE, [found_image], 1)]),
        report.image_queries([report.ImageQuery(RED, [report.FoundText(HOSTILE, 1.0, False)], 2)]),
        report.metric_table([report.Column("k", HOSTILE, HOSTILE)], {HOSTILE: {"k": 1.0}}, HOSTILE),
        report.before_after([report.Change(HOSTILE, 1, 2)], HOSTILE, HOSTILE, HOSTILE),
        report.key_values({HOSTILE: HOSTILE}, HOSTILE),
        report.line_chart(
            report.Chart(HOSTILE, [report.Line(HOSTILE, [(0, 1), (1, 2)])], (1.5, HOSTILE), HOSTILE)
        ),
        report.histogram_chart(
            report.Histogram(HOSTILE, {HOSTILE: [0.5]}, threshold=(0.5, HOSTILE), x=HOSTILE)
        ),
        report.legend([HOSTILE]),
    )
    headline = [report.Headline(HOSTILE, HOSTILE, HOSTILE)]
    section = report.Section(HOSTILE, body, HOSTILE)
    page = page_of(section, folder=tmp_path, command=HOSTILE, headline=headline, summary=HOSTILE)
    names = {name for name, _ in page.elements}
    assert "script" not in names
    assert page.text.count("<script>alert(1)</script>") > 20
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")


def test_the_page_loads_nothing_and_forbids_it(tmp_path: Path) -> None:
    page_of(report.Section("One", tag("p", "x")), folder=tmp_path)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_sections_are_linked_even_with_equal_titles(tmp_path: Path) -> None:
    page = page_of(*[report.Section("Same title", tag("p", "x"))] * 2, folder=tmp_path)
    targets = [attributes["id"] for attributes in page.all("section")]
    assert len(set(targets)) == 3  # and how it was made
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{t}" for t in targets]


# ---- tables


def test_the_best_of_several_rows_is_emphasised_and_a_gap_is_a_dash() -> None:
    columns = [
        tables.Column("up", "up"),
        tables.Column("down", "down", better=-1),
        tables.Column("none", "none", better=0),
    ]
    rows = {
        "a": {"up": 1.0, "down": 1.0, "none": 1.0},
        "b": {"up": 2.04, "down": 3.0},
        "c": {"up": math.nan},
    }
    table = tables.metric_table(columns, rows)
    assert re.findall(r'<td class="best">([^<]*)</td>', table) == ["1.0", "2.0"]
    assert table.count('<td class="none">–</td>') == 3
    assert "best" not in tables.metric_table(columns, {"a": rows["a"]})


def test_changes_are_signed_and_judged() -> None:
    table = tables.before_after(
        [
            tables.Change("recall", 50.0, 62.5),
            tables.Change("loss", 1.0, 1.5, better=-1),
            tables.Change("size", 3, 2, digits=0, better=0),
            tables.Change("new", None, 2.0),
        ],
        "before",
        "after",
    )
    assert '<td class="gain">+12.5</td>' in table
    assert '<td class="loss">+0.5</td>' in table
    assert "<td>−1</td>" in table
    assert "<td>–</td><td>2.0</td><td>–</td>" in table


# ---- charts


def points_of(svg: str, class_: str) -> list[tuple[float, float]]:
    found = re.search(rf'<polyline points="([^"]*)" class="{class_}"', svg)
    assert found
    return [(float(a), float(b)) for a, b in (pair.split(",") for pair in found[1].split())]


def test_a_line_runs_from_edge_to_edge_and_lower_is_lower() -> None:
    line = charts.Line("run", [(0, 2.0), (5, 1.0), (10, 0.0)], colour=1)
    points = points_of(charts.line_chart(charts.Chart("loss", [line])), "line c1")
    assert [x for x, _ in points] == [40, 186, 332]
    assert points[0][1] < points[1][1] < points[2][1]  # SVG counts downwards
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.11)


def test_the_guide_is_within_the_chart_even_beyond_the_line() -> None:
    line = charts.Line("run", [(0, 0.2), (1, 0.1)])
    svg = charts.line_chart(charts.Chart("itm", [line], guide=(0.6365, "guessing")))
    height = float(re.search(r'y1="([\d.]+)" y2="[\d.]+" class="guide"', svg)[1])  # type: ignore[index]
    assert 10 <= height < points_of(svg, "line c0")[0][1]
    assert ">guessing</text>" in svg


def test_values_that_are_no_numbers_are_left_out() -> None:
    line = charts.Line("run", [(0, math.nan), (1, 1.0), (2, math.inf), (3, 2.0)])
    assert len(points_of(charts.line_chart(charts.Chart("loss", [line])), "line c0")) == 2
    empty = charts.line_chart(charts.Chart("loss", [charts.Line("run", [(0, math.nan)])]))
    assert "no finite values" in empty


@pytest.mark.parametrize("points", [[(3, 1.0)], [(0, 0.0), (1, 0.0)], [(0, 1e-12), (1, 1e12)]])
def test_unusual_ranges_are_drawn_within_the_box(points: list[tuple[float, float]]) -> None:
    svg = charts.line_chart(charts.Chart("loss", [charts.Line("run", points)]))
    numbers = [float(n) for n in re.findall(r'[xy][12]?="([-\d.]+)"', svg)]
    assert numbers
    assert all(-1 <= number <= 341 for number in numbers)


def test_points_measured_at_nothing_are_on_an_even_axis() -> None:
    line = charts.Line("ours", [(0, 1.0), (1, 2.0), (4, 3.0)])
    svg = charts.line_chart(charts.Chart("rate", [line], x="workers", measured=(0, 1, 4)))
    assert [x for x, _ in points_of(svg, "line c0")] == [40, 113, 332]
    assert "logarithmic" not in svg


@pytest.mark.parametrize(("at", "middle"), [((8, 32, 128), 186), ((224, 288, 384), 156.8)])
def test_what_few_points_measure_is_marked_from_nothing_up(
    at: tuple[int, ...], middle: float
) -> None:
    line = charts.Line("ours", [(x, y) for x, y in zip(at, (10.0, 20.0, 30.0), strict=True)])
    svg = charts.line_chart(charts.Chart("rate", [line], x="texts", measured=at))
    points = points_of(svg, "line c0")
    assert [x for x, _ in points] == [40, middle, 332]
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3" class="dot c0"', svg)
    assert [(float(x), float(y)) for x, y in dots] == points
    named = [float(x) for x in re.findall(rf'x="([\d.]+)" y="{charts.HEIGHT - 15}"', svg)]
    assert named == [40, middle, 332]
    assert (">texts, logarithmic</text>" in svg) is (at[0] == 8)
    bottom = charts.HEIGHT - charts.BOTTOM
    heights = [bottom - y for _, y in points]  # above 0
    assert heights == pytest.approx([heights[0] * n for n in (1, 2, 3)], abs=0.2)


def test_long_lines_are_smoothed_over_their_raw_values() -> None:
    points = [(float(step), float(step % 2)) for step in range(100)]
    svg = charts.line_chart(charts.Chart("loss", [charts.Line("run", points)]))
    assert len(points_of(svg, "line raw c0")) == len(points_of(svg, "line c0")) == 100
    smooth = charts.smoothed(points)
    assert [x for x, _ in smooth] == [x for x, _ in points]
    assert 0.3 < smooth[50][1] < 0.7
    assert smooth[0] == points[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.13, 9.9, [2.5, 5, 7.5]), (-3, 5, [-2, 0, 2, 4])],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == expected


def test_bars_are_shares_and_outliers_count_at_the_ends() -> None:
    histogram = histograms.Histogram("scores", num_bars=4)
    values = [0.1, 0.3, 0.3, 0.99, 1.0, 7.0, -2.0, math.nan]
    assert histograms._shares(values, histogram) == [2 / 7, 2 / 7, 0, 3 / 7]
    assert histograms._shares([], histogram) == [0, 0, 0, 0]
    assert "0 %" in histograms.histogram_chart(histogram)


# ---- images


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


@pytest.mark.parametrize("at_most", [0.31, 0.333, 0.9, 0.1])
def test_a_targets_mark_does_not_cross_the_value_of_its_bar(at_most: float) -> None:
    drawn = str(ratio_chart("time", [Ratio("work", 0.31, at_most)]))
    (mark,) = map(float, re.findall(r'<line x1="([\d.]+)"[^>]*class="axis"', drawn))
    (text,) = map(float, re.findall(r'<text x="([\d.]+)"[^>]*>0\.31</text>', drawn))
    assert not text < mark < text + 30
    assert mark != text


def test_a_divided_bar_shows_shares_totals_and_no_empty_parts() -> None:
    rows = {"web": [Part("kept", 30, 0), Part("rejected", 9), Part("empty", 0, 4), Part("odd", 1)]}
    page = Page(divided_bars(rows, unit=" s"))
    parts = [(p["class"], p["style"], p["title"]) for p in page.all("i")]
    assert parts == [
        ("c0", "width:75.00%", "kept: 30 s (75.0 %)"),
        ("rest", "width:22.50%", "rejected: 9 s (22.5 %)"),
        ("rest", "width:2.50%", "odd: 1 s (2.5 %)"),
    ]
    assert page.text == "web75 %22 %40 s"  # too narrow a part says nothing
    assert Page(divided_bars({"nothing": [Part("kept", 0, 0)]})).all("i") == []


def test_tiny_images_are_kept_exactly_and_large_ones_are_made_small() -> None:
    small = data_uri(RED)
    assert small.startswith("data:image/png;")
    assert _decoded(small).tobytes() == RED.tobytes()
    large = data_uri(Image.effect_noise((2000, 1000), 100))
    assert large.startswith("data:image/jpeg;")
    assert _decoded(large).size == (320, 160)
    assert len(large) < 60_000


def test_an_image_that_cannot_be_had_leaves_a_box(tmp_path: Path) -> None:
    body = report.gallery([report.Example(None, "a dog")])
    page = page_of(report.Section("Captions", body), folder=tmp_path)
    assert len(page.all("div", "missing")) == 1
    assert page.all("img") == []


@pytest.mark.parametrize(("match", "width"), [(0.25, "25%"), (math.nan, "0%"), (3.0, "100%")])
def test_the_meter_shows_the_probability(match: float, width: str) -> None:
    assert f"width:{width}" in report.gallery([report.Example(RED, "a dog", match=match)])


def test_examples_are_taken_at_equal_distances() -> None:
    assert evenly(range(100), 4) == [0, 25, 50, 75]
    assert evenly(range(3), 4) == [0, 1, 2]


# ---- reports of runs


def write_run(folder: Path, config: str | None, records: list[Any], **files: list[Any]) -> None:
    (folder / "predictions").mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text(config)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in records))
    (folder / "complete.json").write_text(json.dumps({"step": 2, "seconds": 61, "metrics": {}}))
    start = {"command": "python run.py --cfg <x>", "device": "cpu", "processes": 1}
    (folder / "run.json").write_text(json.dumps(start))
    for name, rows in files.items():
        path = folder / "predictions" / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


CONFIG = """
runner: {name: evaluate}
model: {name: blip_pretrain, type: tiny, losses: {itm: {name: itm}}}
evaluate:
  - {name: retrieval, data: {name: scenes, split: test, size: 12}}
  - {name: caption, data: {name: scenes, split: test, size: 12}}
  - {name: facts, data: {name: scenes, split: test, size: 12}}
  - {name: itm, data: {name: scenes, split: test, size: 12}}
run: {output_dir: output/x}
"""


def example_run(folder: Path, config: str | None = CONFIG) -> None:
    """A run with every kind of evaluation over twelve images."""
    image = [{"index": n, "key": f"k{n}", "image_id": f"i{n}"} for n in range(12)]
    text = [f"text {n} <b>" for n in range(12)]
    caption = [{**image[n], "caption": f"said {n}", "references": [text[n]]} for n in range(12)]
    facts = [
        {**row, "parsed": n != 3, "exact": n < 2, "wrong": ["first.colour=red"], "missing": []}
        for n, row in enumerate(caption)
    ]
    itm = [
        {**row, "text_match": 0.9, "other_text_match": 0.1, "caption_match": n / 12}
        for n, row in enumerate(caption)
    ]
    found = [{**image[n], "score": 5.0 - n, "correct": n == 1} for n in range(5)]
    texts = [{"key": f"k{n}", "text": text[n], "score": 1.0, "correct": n == 0} for n in range(5)]
    retrieval = [{"query": "image", **row, "rank": 1, "results": texts} for row in image]
    retrieval += [
        {"query": "text", **row, "text": text[n], "rank": 2, "results": found}
        for n, row in enumerate(image)
    ]
    records = [
        {"step": step, "loss": 3.0 / step, "loss_itm": 0.6, "lr": 1e-3, "samples_per_second": 9.0}
        for step in (1, 2)
    ]
    records += [
        {"step": 2, "evaluate": "retrieval", "txt_r1": 12.5, "r_mean": 43.21, "seconds": 1},
        {"step": 2, "evaluate": "caption", "bleu_4": 0.25, "cider_d": None, "seconds": 1},
        {"step": 2, "evaluate": "facts", "exact": 0.1666, "colour": 0.5, "seconds": 1},
        {"step": 2, "evaluate": "itm", "accuracy": 0.75, "auc": 0.875, "seconds": 1},
    ]
    write_run(folder, config, records, retrieval=retrieval, caption=caption, facts=facts, itm=itm)


def read_page(path: str) -> Page:
    return Page(Path(path).read_text("utf-8"))


def test_a_pipeline_is_shown_with_figures_curves_and_examples(tmp_path: Path) -> None:
    example_run(tmp_path / "pretrain")
    example_run(tmp_path / "again")
    stages = {"pretrain": tmp_path / "pretrain", "again": tmp_path / "again"}
    path = report.report_pipeline(
        tmp_path, stages, "Two <runs>", compare=[("pretrain", "again")], about="One seed."
    )
    assert path == str(tmp_path / "report.html")
    page = read_page(path)
    ids = [attributes["id"] for attributes in page.all("section")]
    assert ids == [
        "before-and-after",
        "results",
        "captions",
        "retrieval",
        "matching",
        "training",
        "runs",
        "how-this-was-made",
    ]
    for text in (
        "One seed. 2 runs",
        "43.2%",
        "16.7%",
        "python run.py --cfg <x>",
        "guessing: 0.6365",
        "2 min 2 s",
    ):
        assert text in page.text
    assert len(page.all("img")) == 12 + 6 * 5 + 6
    assert page.text.count("wrong: first colour red") == 11
    assert page.text.count("cannot be read as a description") == 1
    assert len(page.all("span", "mark good")) == 2
    assert "fits: 0.92" in page.text
    assert page.text.count("total loss") == 1  # runs are drawn over each other
    assert Path(path).stat().st_size < 2**20


def test_compared_runs_show_the_earlier_captions_and_figures(tmp_path: Path) -> None:
    for name in ("first", "second"):
        example_run(tmp_path / name)
    captions = tmp_path / "first" / "predictions" / "caption.jsonl"
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    rows[1]["caption"] = "said <otherwise>"
    captions.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    metrics = tmp_path / "first" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("0.1666", "0.0833"))
    stages = {name: tmp_path / name for name in ("first", "second")}
    page = read_page(report.report_pipeline(tmp_path, stages, "x", compare=[("first", "second")]))
    assert page.text.count("said <otherwise>") == 1  # the other captions did not change
    assert len(page.all("s")) == 1
    assert "captions with every fact right (second, 12 images; before: 8.3)" in page.text
    assert "+0.083" in page.text


def test_a_runner_may_show_sections_of_its_own(tmp_path: Path, monkeypatch) -> None:
    class Runner:
        Config = EvaluateConfig

        @staticmethod
        def report_sections(folder, config):
            found = f"{folder.name}, {config.runner.name}"
            return [report.Section("Own", report.tag("p", found))]

    registry.register("runner", "showing")(Runner)
    config = CONFIG.replace("runner: {name: evaluate}", "runner: {name: showing}")
    example_run(tmp_path / "done", config)
    page = read_page(report.report_pipeline(tmp_path, {"done": tmp_path / "done"}, "x"))
    assert "done, showing" in page.text
    (tmp_path / "done" / "complete.json").unlink()  # it has nothing to say yet
    page = read_page(report.report_pipeline(tmp_path, {"done": tmp_path / "done"}, "x"))
    assert "done, showing" not in page.text


def test_a_run_whose_config_is_gone_is_shown_without_images(tmp_path: Path) -> None:
    example_run(tmp_path / "run", config=None)
    page = read_page(report.report_run(tmp_path / "run"))
    assert page.all("img") == []
    assert len(page.all("div", "missing")) == 12 + 6 * 5 + 6
    assert "43.2" in page.text


@pytest.mark.parametrize(
    "config", ["runner: {name: ", CONFIG.replace("name: scenes", "name: nowhere"), "5"]
)
def test_a_config_that_cannot_be_read_costs_the_images_only(tmp_path: Path, config: str) -> None:
    example_run(tmp_path / "run", config=config)
    page = read_page(report.report_run(tmp_path / "run", "Broken"))
    assert page.all("img") == []
    assert "43.2" in page.text


def test_rows_of_another_shape_cost_their_section_only(tmp_path: Path) -> None:
    example_run(tmp_path / "run")
    (tmp_path / "run" / "predictions" / "caption.jsonl").write_text('{"other": 1}\nhalf a li')
    page = read_page(report.report_run(tmp_path / "run"))
    ids = [attributes["id"] for attributes in page.all("section")]
    assert "captions" not in ids
    assert "retrieval" in ids


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    page = read_page(report.report_pipeline(tmp_path, {"gone": tmp_path / "gone"}, "Nothing"))
    assert "Not finished: gone" in page.text


def test_a_metric_that_states_nothing_gets_a_table(tmp_path: Path) -> None:
    records = [{"step": 3, "evaluate": "my_metric", "some_figure": 0.5, "seconds": 1.0}]
    write_run(tmp_path / "run", None, records)
    page = read_page(report.report_run(tmp_path / "run"))
    assert "my metric" in page.text
    assert "some figure" in page.text


def test_the_environment_names_versions_and_hardware() -> None:
    found = report.environment()
    assert {"lavis_lite", "torch", "Python", "platform", "processor", "cores"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_importing_the_report_loads_no_torch() -> None:
    code = "import sys, lavis_lite.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
