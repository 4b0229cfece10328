"""The built pages in a browser: none is wider than its window; a build leaves the sources alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
WIDTHS = (390, 1280)  # pixels: a telephone, a laptop

# What is wider than the window, and in nothing that scrolls by itself.
TOO_WIDE = """
const width = document.documentElement.clientWidth, found = [];
if (document.documentElement.scrollWidth > width) found.push("the page");
for (const node of document.querySelectorAll("article *")) {
  const box = node.getBoundingClientRect();
  if (!box.width || !box.height || box.right <= width + 1) continue;
  let scrolls = false, outer = node;
  while ((outer = outer.parentElement) && outer !== document.body)
    if (["auto", "scroll"].includes(getComputedStyle(outer).overflowX)
        && outer.getBoundingClientRect().right <= width + 1) scrolls = true;
  if (!scrolls) found.push(node.tagName + ": " + node.textContent.trim().slice(0, 60));
}
return found.slice(0, 5);
"""

pytestmark = pytest.mark.slow


def sources() -> dict[str, float]:
    """Every file of the documentation's sources with its time, but for Python's own cache."""
    paths = (path for path in DOCS.rglob("*") if path.is_file())
    return {
        str(path): path.stat().st_mtime
        for path in paths
        if not {"__pycache__", "_build"} & set(path.parts)
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """The folder of the pages, and the sources as they were before."""
    pytest.importorskip("sphinx", reason="builds the pages")
    pytest.importorskip("furo", reason="the pages' theme decides their widths")
    before, folder = sources(), tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-d", str(folder / "trees")]
    done = subprocess.run(
        [*command, str(DOCS), str(folder / "html")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html", before


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="opens the pages")
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        pytest.skip("no chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as opened:
        yield opened


def test_a_build_writes_nothing_among_the_sources(built: tuple[Path, dict[str, float]]) -> None:
    _, before = built
    assert sources() == before


@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(
    width: int, built: tuple[Path, dict[str, float]], browser: Any
) -> None:
    pages = [page for page in built[0].rglob("*.html") if "_modules" not in page.parts]
    assert len(pages) > 20
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    too_wide = {}
    for page in pages:
        browser.get(page.as_uri())
        if found := browser.execute_script(TOO_WIDE):
            too_wide[str(page.relative_to(built[0]))] = found
    assert too_wide == {}
