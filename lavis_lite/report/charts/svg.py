"""Drawings of matplotlib as SVG that stands within a page."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from lavis_lite.report.charts.style import NUM_COLOURS, VARIABLES, theme
from lavis_lite.report.render import Html, printable, render

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

WIDTH, HEIGHT = 310, 190
_SAYS = "says: "
_UNDATED = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_KEPT = ("d", "x", "y", "transform", "style")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;? ?")  # it is the page's own
_COLOUR = re.compile(r"#[0-9a-f]{6}")
Markers = Mapping[str, ElementTree.Element]


def draw(
    paint: Callable[[Axes], None],
    title: str,
    description: str,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Html:
    """Return a drawing as inline SVG that has no ids, so that pages may hold any number of them.

    Args:
        paint: draws on the axes that it is given, in the reports' theme; its texts are to go
            through `plain` first.
        title: what the picture is, for those who do not see it.
        description: what it says: the series and their figures.
        width, height: in pixels, where the page has room for them.
    """
    from matplotlib.figure import Figure

    file = io.StringIO()
    with theme(), warnings.catch_warnings():
        # The browser has the glyphs that the font which texts are measured in lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure = Figure((width / 72, height / 72), layout="constrained", frameon=False)  # inches
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        paint(axes)
        figure.savefig(file, format="svg", metadata=_UNDATED)
    return _inline(ElementTree.fromstring(file.getvalue()), title, description)


def plain(text: object) -> str:
    """Return a text as it may stand in a drawing: one line, without control characters."""
    return " ".join(printable(str(text)).split())


def wrapped(text: object, width: int) -> str:
    """Return a text as `plain` does, in lines of at most so many letters."""
    return textwrap.fill(plain(text), width)


def says(artist: Artist, text: str) -> None:
    """Have the page show a text where an artist is pointed at."""
    artist.set_gid(_SAYS + plain(text))


def set_ticks(axis: Axis, about: int, written: Callable[[float], str]) -> None:
    """Put ticks at about so many round numbers of an axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(about, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))


def figure(title: str, drawing: Html | None, names: Sequence[tuple[str, int | None]] = ()) -> Html:
    """Return a drawing with its title and legend.

    Args:
        title: what is drawn.
        drawing: from `draw`; None where there is nothing to draw yet.
        names: the legend, names with one of the page's six colours; None is grey.
    """
    return render(
        "chart.html.jinja",
        title=title, drawing=drawing, names=names, nothing="There are no values to draw.",
    )  # fmt: skip


def legend(names: Sequence[str]) -> Html:
    """Return names with the colours that lines and bars of these numbers have."""
    numbered = [(name, number % NUM_COLOURS) for number, name in enumerate(names)]
    return render("legend.html.jinja", names=numbered)


def _inline(drawn: ElementTree.Element, title: str, description: str) -> Html:
    attributes = {
        "viewBox": drawn.attrib["viewBox"],
        "role": "img",
        "aria-label": plain(title),
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    made = ElementTree.Element("svg", attributes)
    for name, text in (("title", title), ("desc", description)):
        ElementTree.SubElement(made, name).text = plain(text)
    markers = {f"#{path.get('id')}": path for path in drawn.iter() if path.get("id")}
    for child in drawn:
        made.extend(_elements(child, markers))
    return Html(ElementTree.tostring(made, encoding="unicode"))


def _elements(found: ElementTree.Element, markers: Markers) -> Iterator[ElementTree.Element]:
    """Give what a page needs of an element: no namespace, no ids, markers in their places."""
    name = _local(found.tag)
    if name == "g":
        inner = [made for child in found for made in _elements(child, markers)]
        said = found.get("id", "")
        if said.startswith(_SAYS):
            group = ElementTree.Element("g")
            ElementTree.SubElement(group, "title").text = said.removeprefix(_SAYS)
            group.extend(inner)
            inner = [group]
        yield from inner
    elif name == "use":
        attributes = {_local(key): value for key, value in found.items()}
        place = f"translate({attributes['x']} {attributes['y']})"
        path = {"d": markers[attributes["href"]].attrib["d"], "transform": place}
        yield ElementTree.Element("path", _short({**path, "style": attributes["style"]}))
    elif name in ("path", "text"):
        kept = {key: found.attrib[key] for key in _KEPT if key in found.attrib}
        if kept.get("transform", "").startswith("rotate(-0 "):
            del kept["transform"]
        made = ElementTree.Element(name, _short(kept))
        made.text = found.text
        yield made


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]


def _short(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return attributes with numbers of two decimals and colours and fonts of the page."""
    made = {}
    for key, value in attributes.items():
        if key == "style":
            value = _COLOUR.sub(_variable, _FONT_FAMILY.sub("", value)).strip("; ")
        value = _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value)
        made[key] = " ".join(value.split())
    return made


def _variable(colour: re.Match[str]) -> str:
    variable = VARIABLES.get(colour[0])
    return f"var({variable}, {colour[0]})" if variable else colour[0]
