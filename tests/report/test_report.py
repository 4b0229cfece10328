"""Parts of reports: escaped, self-contained, and as the numbers say."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_pages import Page, nothing_active

from lavis_lite import report
from lavis_lite.report import Html, charts, side_by_side, tables
from lavis_lite.report.examples import evenly
from lavis_lite.report.pictures import data_uri

HOSTILE = [
    "\"><script>alert(1)</script><img src=http://evil.example onerror='x'>&amp; \x00 \ud800",
    '"><img onerror="alert(1)" src=x>',
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% include 'page.css' %} $\\frac{1$ ]]> --> </style></svg>",
]
RED = Image.new("RGB", (8, 6), (255, 0, 0))


def page_of(*sections: report.Section, folder: Path, **options: Any) -> Page:
    path = report.write_report(sections, folder / "r.html", "A title", environment={}, **options)
    return Page(Path(path).read_text("utf-8"))


def printed(text: str) -> str:
    """A text as a page shows it: characters that no page may hold are replaced."""
    return re.sub(r"[\x00\ud800]", "\ufffd", text)


# ---- escaping


def test_text_is_escaped_and_markup_is_not(tmp_path: Path) -> None:
    sections = [
        report.Section("a < b", "x & <b>"),
        report.Section("c", Html("<i>{}</i>").format("<")),
    ]
    page_of(*sections, folder=tmp_path)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "<h2>a &lt; b</h2>\nx &amp; &lt;b&gt;\n" in text
    assert "<i>&lt;</i>" in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_stays_text_in_every_part(tmp_path: Path, hostile: str) -> None:
    example = report.Example(RED, hostile, hostile, match=0.5, right=False, remark=hostile)
    found_image = report.FoundImage(RED, 1.0, True, hostile)
    rows = {hostile: [charts.Part(hostile, 2.0, 0)]}
    parts = [
        report.gallery([example]),
        report.text_queries([report.TextQuery(hostile, [found_image], 1)]),
        report.image_queries([report.ImageQuery(RED, [report.FoundText(hostile, 1.0, False)], 2)]),
        report.metric_table([report.Column("k", hostile, hostile)], {hostile: {"k": 1.0}}, hostile),
        report.before_after([report.Change(hostile, 1, 2)], hostile, hostile, hostile),
        report.key_values({hostile: hostile}, hostile),
        report.figure_table(
            [report.Column("k", hostile, unit=hostile)], {hostile: {}}, hostile, hostile
        ),
        report.line_chart(
            report.Chart(
                hostile, [report.Line(hostile, [(0, 1), (1, 2)])] * 2, (1.5, hostile), hostile
            )
        ),
        report.histogram_chart(
            report.Histogram(hostile, {hostile: [0.5]}, threshold=(0.5, hostile), x=hostile)
        ),
        charts.dot_chart(charts.Dots(hostile, {hostile: [1.0]}, [hostile], hostile)),
        charts.ratio_chart(hostile, [charts.Ratio(hostile, 2.0, 1.0)]),
        charts.divided_bars(hostile, rows),
        report.legend([hostile]),
    ]
    headline = [report.Headline(hostile, hostile, hostile, hostile)]
    section = report.Section(hostile, side_by_side(parts, "charts"), hostile)
    page = page_of(section, folder=tmp_path, command=hostile, headline=headline, summary=hostile)
    assert page.text.count(printed(hostile)) > 30
    nothing_active(page)


def test_the_page_loads_nothing_and_forbids_it(tmp_path: Path) -> None:
    page_of(report.Section("One", "x"), folder=tmp_path)
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "default-src 'none'" in text.replace("&#x27;", "'")
    assert not re.search(r"https?://|<script|<link|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_sections_are_linked_even_with_equal_titles(tmp_path: Path) -> None:
    page = page_of(*[report.Section("Same title", "x")] * 2, folder=tmp_path)
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


def test_figures_of_runs_have_names_units_and_say_of_how_many_they_are() -> None:
    columns = [
        tables.Column("r1", "R@1", "texts", unit="%"),
        tables.Column("cost", "cost", better=-1),
    ]
    runs = {"a": {"r1": 20.0, "cost": 3.0}, "b": {"r1": 80.0, "cost": 4.0}}
    page = Page(tables.figure_table(columns, runs, "Retrieval", "300 images"))
    assert [a.get("scope") for a in page.all("th")] == ["col"] * 3 + ["row"] * 2
    assert "Retrieval 300 images" in page.text
    assert "figureab" in page.text
    assert re.sub(r"\s+", " ", page.text).endswith("texts, R@1 %20.080.0 cost3.04.0 ")
    assert [len(page.all("td", "best"))] == [2]
    assert page.all("div", "scroll")


def test_changes_are_signed_and_judged() -> None:
    table = tables.before_after(
        [
            tables.Change("recall", 50.0, 62.5),
            tables.Change("loss", 1.0, 1.5, better=-1),
            tables.Change("size", 3, 2, digits=0, better=0),
            tables.Change("new", None, 2.0),
            tables.Change("AUC", 0.9994, 0.9993, digits=3),
        ],
        "before",
        "after",
    )
    assert '<td class="gain">+12.5</td>' in table
    assert '<td class="loss">+0.5</td>' in table
    assert "<td>−1</td>" in table
    assert "<td>–</td><td>2.0</td><td>–</td>" in table
    assert "<td>+0.000</td>" in table, "what rounds to nothing is no loss"


# ---- images


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


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
