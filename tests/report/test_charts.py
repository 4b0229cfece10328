"""Charts of reports: drawn where the numbers say, told in words, the same each time."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from lavis_lite.report import Html, charts
from lavis_lite.report.charts import histograms, lines
from lavis_lite.report.charts.style import COLOURS, MUTED

Element = ElementTree.Element


def svg_of(chart: Html) -> Element:
    found = re.search(r"<svg.*</svg>", chart, re.DOTALL)
    assert found
    return ElementTree.fromstring(found[0])


def painted(chart: Html, colour: str, property: str = "stroke") -> list[Element]:
    """The paths whose line, or area, has one of the colours of the theme."""
    wanted = re.compile(rf"\b{property}: var\(--\w+, {colour}\)")
    return [p for p in svg_of(chart).iter("path") if wanted.search(p.get("style", ""))]


def points_of(path: Element) -> list[tuple[float, float]]:
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", path.attrib["d"])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def places_of(chart: Html, colour: str) -> list[tuple[float, float]]:
    """Where dots of a colour are."""
    moved = [p.get("transform", "") for p in painted(chart, colour)]
    found = [re.fullmatch(r"translate\((\S+) (\S+)\)", place) for place in moved]
    return [(float(place[1]), float(place[2])) for place in found if place]


def texts_of(chart: Html) -> dict[str, Element]:
    return {text.text or "": text for text in svg_of(chart).iter("text")}


def x_of(chart: Html, text: str) -> float:
    return float(texts_of(chart)[text].attrib["x"])


def line(*points: tuple[float, float], colour: int = 0) -> charts.Line:
    return charts.Line("run", points, colour)


# ---- all charts

EVERY = {
    "lines": lambda: charts.line_chart(
        charts.Chart("loss", [line((0, 2.0), (9, 1.0)), line((0, 1.0), (9, 0.5), colour=1)])
    ),
    "histogram": lambda: charts.histogram_chart(
        charts.Histogram("scores", {"true": [0.9, 0.8], "false": [0.1]}, threshold=(0.5, "decides"))
    ),
    "bars": lambda: charts.divided_bars("kept", {"web": [charts.Part("kept", 3, 0)]}),
    "dots": lambda: charts.dot_chart(charts.Dots("accuracy", {"a": [1.0, 2.0], "b": [3.0]})),
    "ratios": lambda: charts.ratio_chart("time", [charts.Ratio("work", 0.5, 0.8)]),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_chart_is_an_image_with_words_for_those_who_do_not_see_it(name: str) -> None:
    svg = svg_of(EVERY[name]())
    assert svg.get("role") == "img"
    assert svg.get("aria-label")
    title, description = svg[0], svg[1]
    assert (title.tag, description.tag) == ("title", "desc")
    assert title.text == svg.get("aria-label")
    assert re.search(r"\d", description.text or "")  # it says the figures


@pytest.mark.parametrize("name", EVERY)
def test_the_same_chart_is_the_same_text_without_ids_and_dates(name: str) -> None:
    first, second = EVERY[name](), EVERY[name]()
    assert first == second
    assert not re.search(r"\bid=|url\(|href=|https?:|<metadata|\b20\d\d-", first)


@pytest.mark.parametrize("name", EVERY)
def test_all_colours_are_the_pages_and_text_is_text(name: str) -> None:
    svg = svg_of(EVERY[name]())
    styles = [element.get("style", "") for element in svg.iter()]
    bare = [style for style in styles if "#" in re.sub(r"var\(--\w+, #\w+\)", "", style)]
    assert bare == []
    assert any("var(--" in style for style in styles)
    assert all(text.text and "fill: var(" in text.get("style", "") for text in svg.iter("text"))
    assert "font-family" not in "".join(styles)


@pytest.mark.parametrize("name", EVERY)
def test_a_chart_is_small_and_stands_within_its_box(name: str) -> None:
    chart = EVERY[name]()
    assert len(chart) < 12_000
    _, _, width, height = map(float, svg_of(chart).attrib["viewBox"].split())
    for path in svg_of(chart).iter("path"):
        if "transform" not in path.attrib:
            for x, y in points_of(path):
                assert -1 <= x <= width + 1
                assert -1 <= y <= height + 1


def test_settings_of_the_users_matplotlib_do_not_change_a_chart() -> None:
    import matplotlib

    expected = EVERY["lines"]()
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.fonttype": "path", "font.size": 30}):
        assert EVERY["lines"]() == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_charts_need_no_pyplot_and_no_display_and_load_matplotlib_only_when_drawn() -> None:
    code = """
import sys
from lavis_lite.report import charts
assert 'matplotlib' not in sys.modules
charts.ratio_chart('time', [charts.Ratio('work', 0.5)])
assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules
"""
    environment = {"PATH": "", "MPLBACKEND": "TkAgg"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_texts_that_mean_something_elsewhere_are_drawn_as_they_are() -> None:
    name = "_$\\frac{1$ 漢字 <b>"
    drawn = charts.dot_chart(charts.Dots("accuracy", {name: [1.0]}))
    assert name in " ".join(texts_of(drawn))


def test_a_long_name_is_wrapped_and_not_cut() -> None:
    name = "an arm whose name says everything that was changed in it"
    drawn = charts.dot_chart(charts.Dots("accuracy", {name: [1.0], "short": [2.0]}))
    assert name in " ".join(texts_of(drawn))
    wide = charts.ratio_chart("time", [charts.Ratio(f"{name} {name}", 0.5)])
    assert f"{name} {name}" in " ".join(texts_of(wide))


# ---- lines


def test_a_line_runs_from_edge_to_edge_and_lower_is_lower() -> None:
    drawn = charts.line_chart(charts.Chart("loss", [line((0, 2.0), (5, 1.0), (10, 0.0), colour=1)]))
    (path,) = painted(drawn, COLOURS[1])
    (left, high), (centre, middle), (right, low) = points_of(path)
    assert (left, right) == (pytest.approx(x_of(drawn, "0"), abs=8), pytest.approx(307, abs=8))
    assert high < middle < low  # SVG counts downwards
    assert middle == pytest.approx((high + low) / 2, abs=0.1)
    assert centre == pytest.approx((left + right) / 2, abs=0.1)


def test_several_lines_have_a_legend_and_one_has_none() -> None:
    two = [charts.Line("first", [(0, 1)], 0), charts.Line("second", [(0, 2)], 3)]
    drawn = charts.line_chart(charts.Chart("loss", two))
    assert re.findall(r'class="swatch (c\d)"></i>(\w+)', drawn) == [
        ("c0", "first"),
        ("c3", "second"),
    ]
    assert "legend" not in charts.line_chart(charts.Chart("loss", two[:1]))


def test_the_guide_is_within_the_chart_even_beyond_the_line() -> None:
    chart = charts.Chart("itm", [line((0, 0.2), (1, 0.1))], guide=(0.6365, "guessing"))
    drawn = charts.line_chart(chart)
    (guide,) = [p for p in painted(drawn, MUTED) if "dasharray" in p.attrib["style"]]
    height = points_of(guide)[0][1]
    assert 0 < height < points_of(painted(drawn, COLOURS[0])[0])[0][1]
    assert float(texts_of(drawn)["guessing"].attrib["y"]) == pytest.approx(height, abs=16)


def test_values_that_are_no_numbers_are_left_out() -> None:
    odd = line((0, math.nan), (1, 1.0), (2, math.inf), (3, 2.0))
    (path,) = painted(charts.line_chart(charts.Chart("loss", [odd])), COLOURS[0])
    assert len(points_of(path)) == 2
    empty = charts.line_chart(charts.Chart("loss", [line((0, math.nan))]))
    assert "There are no values to draw" in empty
    assert "<svg" not in empty


@pytest.mark.parametrize("points", [[(3, 1.0)], [(0, 0.0), (1, 0.0)], [(0, 1e-12), (1, 1e12)]])
def test_unusual_ranges_are_drawn_within_the_box(points: list[tuple[float, float]]) -> None:
    drawn = charts.line_chart(charts.Chart("loss", [line(*points)]))
    places = places_of(drawn, COLOURS[0]) or points_of(painted(drawn, COLOURS[0])[0])
    assert len(places) == len(points)
    assert all(0 <= x <= 311 and 0 <= y <= 191 for x, y in places)


def test_points_measured_at_nothing_are_on_an_even_axis() -> None:
    chart = charts.Chart(
        "rate", [line((0, 1.0), (1, 2.0), (4, 3.0))], x="workers", measured=(0, 1, 4)
    )
    drawn = charts.line_chart(chart)
    places = [x for x, _ in places_of(drawn, COLOURS[0])]
    assert (places[1] - places[0]) / (places[2] - places[0]) == pytest.approx(0.25, abs=0.01)
    assert "logarithmic" not in drawn


@pytest.mark.parametrize(("at", "middle"), [((8, 32, 128), 0.5), ((224, 288, 384), 0.4)])
def test_what_few_points_measure_is_marked_from_nothing_up(
    at: tuple[int, ...], middle: float
) -> None:
    measured = line(*zip(at, (10.0, 20.0, 30.0), strict=True))
    drawn = charts.line_chart(charts.Chart("rate", [measured], x="texts", measured=at))
    places = places_of(drawn, COLOURS[0])
    xs = [x for x, _ in places]
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(middle, abs=0.01)
    assert [x_of(drawn, str(x)) for x in at] == pytest.approx(xs, abs=0.1)
    assert ("texts, logarithmic" in texts_of(drawn)) is (at[0] == 8)
    (axis,) = [p for p in painted(drawn, MUTED) if "dasharray" not in p.attrib["style"]]
    heights = [points_of(axis)[0][1] - y for _, y in places]  # above 0
    assert heights == pytest.approx([heights[0] * n for n in (1, 2, 3)], abs=0.2)


def test_long_lines_are_smoothed_over_their_raw_values() -> None:
    points = [(float(step), float(step % 2)) for step in range(100)]
    raw, mean = painted(charts.line_chart(charts.Chart("loss", [line(*points)])), COLOURS[0])
    assert "opacity: 0.3" in raw.attrib["style"]
    assert "opacity" not in mean.attrib["style"]
    assert len(points_of(raw)) == len(points_of(mean)) == 100
    smooth = lines.smoothed(points)
    assert [x for x, _ in smooth] == [x for x, _ in points]
    assert 0.3 < smooth[50][1] < 0.7
    assert smooth[0] == points[0]


# ---- histograms


def test_bars_are_shares_and_outliers_count_at_the_ends() -> None:
    histogram = charts.Histogram("scores", num_bars=4)
    values = [0.1, 0.3, 0.3, 0.99, 1.0, 7.0, -2.0, math.nan]
    assert histograms.shares(values, histogram) == [2 / 7, 2 / 7, 0, 3 / 7]
    assert histograms.shares([], histogram) == [0, 0, 0, 0]
    assert "0 %" in texts_of(charts.histogram_chart(histogram))


def test_a_bar_is_as_high_as_its_share() -> None:
    histogram = charts.Histogram("scores", {"a": [0.1, 0.1, 0.1, 0.9]}, num_bars=2)
    (bars,) = painted(charts.histogram_chart(histogram), COLOURS[0], "fill")
    heights = sorted({y for _, y in points_of(bars)}, reverse=True)  # 0, 25 and 75 %
    assert (heights[0] - heights[2]) == pytest.approx(3 * (heights[0] - heights[1]), abs=0.1)


@pytest.mark.parametrize(("at", "anchor"), [(0.2, "start"), (0.95, "end")])
def test_the_label_of_a_threshold_stays_inside(at: float, anchor: str) -> None:
    histogram = charts.Histogram("scores", {"a": [0.1]}, threshold=(at, "kept above"))
    style = texts_of(charts.histogram_chart(histogram))["kept above"].attrib["style"]
    assert f"text-anchor: {anchor}" in style


# ---- bars, dots, ratios


def test_a_divided_bar_shows_shares_totals_and_no_empty_parts() -> None:
    parts = [("kept", 30, 0), ("rejected", 9, None), ("empty", 0, 4), ("odd", 1, None)]
    rows = {"web": [charts.Part(*part) for part in parts]}
    drawn = charts.divided_bars("texts", rows, unit=" s")
    said = [title.text for group in svg_of(drawn).iter("g") for title in group.iter("title")]
    assert said == ["kept 30 s (75.0 %)", "rejected 9 s (22.5 %)", "odd 1 s (2.5 %)"]
    assert set(texts_of(drawn)) == {"web", "75 %", "22 %", "40 s"}  # too narrow a part says nothing
    assert re.findall(r'class="swatch (\w+)"></i>(\w+)', drawn) == [
        ("c0", "kept"), ("rest", "rejected"), ("rest", "odd"),
    ]  # fmt: skip
    widths = [
        points_of(group[1])[1][0] - points_of(group[1])[0][0] for group in svg_of(drawn).iter("g")
    ]
    assert widths[0] / widths[1] == pytest.approx(30 / 9, rel=0.01)
    assert "<svg" not in charts.divided_bars("nothing", {"web": [charts.Part("kept", 0, 0)]})


def test_a_dot_stands_where_its_value_is() -> None:
    rows = {"low <b>": [10.0, 20.0], "high": [30.0]}
    drawn = charts.dot_chart(charts.Dots("accuracy", rows))
    places = places_of(drawn, COLOURS[0])
    assert len(places) == 3
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[2][0] - places[1][0] == pytest.approx(places[1][0] - places[0][0], abs=0.2)
    assert places[0][1] == places[1][1] < places[2][1]
    assert "low &lt;b&gt;" in drawn


def test_a_chart_of_nothing_yet_says_so() -> None:
    assert "There are no values to draw" in charts.dot_chart(charts.Dots("accuracy", {}))


def test_dots_of_several_kinds_have_a_colour_each() -> None:
    dots = charts.Dots("accuracy", {"low": [10.0, None, 30.0]}, kinds=["a", "b", "c"])
    drawn = charts.dot_chart(dots)
    # There is no value of the second kind.
    assert [len(places_of(drawn, colour)) for colour in COLOURS[:3]] == [1, 0, 1]
    assert all(f"</i>{name}</span>" in drawn for name in "abc")


@pytest.mark.parametrize("at_most", [0.31, 0.333, 0.9, 0.1])
def test_a_targets_mark_does_not_cross_the_value_of_its_bar(at_most: float) -> None:
    drawn = charts.ratio_chart("time", [charts.Ratio("work", 0.31, at_most)])
    marks = [p for p in painted(drawn, "#1f2024") if len(points_of(p)) == 2]
    mark = points_of(marks[0])[0][0]
    text = x_of(drawn, "0.31")
    assert not text < mark < text + 25


def test_a_bar_beyond_its_target_has_another_colour_and_is_explained() -> None:
    ratios = [charts.Ratio("good", 0.5, 0.6), charts.Ratio("bad", 0.8, 0.6), charts.Ratio("new", 2)]
    drawn = charts.ratio_chart("time", ratios)
    assert [len(painted(drawn, colour, "fill")) for colour in COLOURS[:2]] == [2, 1]
    assert "above its target" in drawn
    assert "above its target" not in charts.ratio_chart("time", ratios[:1])
