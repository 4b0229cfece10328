"""The reports' charts, drawn by matplotlib in the page's own colours, as SVG within the page."""

from lavis_lite.report.charts.bars import Part, divided_bars
from lavis_lite.report.charts.dots import Dots, dot_chart
from lavis_lite.report.charts.histograms import Histogram, histogram_chart
from lavis_lite.report.charts.lines import Chart, Line, line_chart, smoothed
from lavis_lite.report.charts.ratios import Ratio, ratio_chart
from lavis_lite.report.charts.svg import legend

__all__ = [
    "Chart",
    "Dots",
    "Histogram",
    "Line",
    "Part",
    "Ratio",
    "divided_bars",
    "dot_chart",
    "histogram_chart",
    "legend",
    "line_chart",
    "ratio_chart",
    "smoothed",
]
