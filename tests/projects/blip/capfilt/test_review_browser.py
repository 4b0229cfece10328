"""The page of a review in a real browser, without a window."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator

import pytest

from lavis_lite.projects.blip.capfilt.labels import read_labels
from lavis_lite.projects.blip.capfilt.review.index import TextIndex
from tests.projects.blip.capfilt.reviewed import served

pytest.importorskip("uvicorn", reason="the extra `app` is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER), reason="there is no chromium with its chromedriver"
)

ATTACK = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
SECONDS = 20  # a browser on a busy machine


class Page:
    """A page in a browser, and what is on it."""

    def __init__(self, driver, address: str) -> None:
        self.driver, self.address = driver, address
        self.open()

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.all(".candidate"))

    def wait(self, what):
        end = time.monotonic() + SECONDS
        while not (found := what()):
            assert time.monotonic() < end, (self.text("problem"), self.text("progress"))
            time.sleep(0.02)
        return found

    def all(self, selector: str) -> list:
        return self.driver.find_elements("css selector", selector)

    def text(self, id: str) -> str:
        return self.driver.execute_script(
            "return document.getElementById(arguments[0]).textContent", id
        )

    def said(self) -> list[str]:
        return self.driver.execute_script(
            "return [...document.querySelectorAll('.candidate .said')].map((e) => e.textContent)"
        )

    def press(self, keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        self.wait(lambda: self.all("main[aria-busy=false]"))
        ActionChains(self.driver).send_keys(keys).perform()

    def judge(self, key: str) -> None:
        judged = self.text("progress")
        self.press(key)
        self.wait(lambda: self.text("progress") != judged)

    def set(self, id: str, value: object) -> None:
        self.wait(lambda: self.all("main[aria-busy=false]"))
        self.driver.execute_script(
            "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change'));",
            *(id, str(value)),
        )


@contextlib.contextmanager
def browser() -> Iterator:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def hostile(capfilt):
    """A run whose first web text and captions are markup."""
    folder = capfilt("out", "captioner.generate={num_captions: 2}")
    for path in (folder / "shards").glob("shard-??????.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["web_text"] = f"{ATTACK} {row['index']}"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_ten_texts_are_judged_by_keys_and_are_there_again_after_a_reload(hostile):
    with served(hostile) as server, browser() as driver:
        page = Page(driver, f"http://127.0.0.1:{server.port}/")
        page.set("labeller", "bo")
        page.wait(lambda: "0 judged" in page.text("progress"))
        for number in range(10):
            page.judge("123"[number % 3])
        page.wait(lambda: page.text("judged").startswith("7 judged, 4 of them fit"))
        labels = read_labels(hostile)
        assert [one.label for one in labels[:3]] == ["fits", "does not fit", "unsure"]
        assert {one.labeller for one in labels} == {"bo"}
        scores, index = [], TextIndex(hostile)
        for one in labels:
            score = index.texts(index.number_of[one.key])[one.place].scores["itm"]
            scores.append(abs(score - 0.5))
        assert scores == sorted(scores)  # nearest to the cut first

        page.open()
        page.wait(lambda: page.text("progress").startswith("10 judged"))
        page.press("b")  # nothing is before the first one
        assert len(read_labels(hostile)) == 10


def test_one_can_go_back_change_ones_mind_and_leave_a_note(hostile):
    with served(hostile) as server, browser() as driver:
        page = Page(driver, f"http://127.0.0.1:{server.port}/")
        page.judge("1")
        assert page.driver.execute_script("return state.at") == 1
        page.press("b")
        page.wait(lambda: page.driver.execute_script("return state.at") == 0)
        page.press("n")
        page.press("hard to see")
        page.press("\ue007")  # Enter
        page.wait(lambda: read_labels(hostile)[0].note == "hard to see")
        page.press("2")
        page.wait(lambda: read_labels(hostile)[0].label == "does not fit")
        assert len(read_labels(hostile)) == 1
        assert len((hostile / "labels" / "anna.jsonl").read_text().splitlines()) == 3


def test_the_slider_shows_what_a_cut_keeps_and_the_cut_is_written(hostile):
    with served(hostile) as server, browser() as driver:
        page = Page(driver, f"http://127.0.0.1:{server.port}/")
        page.wait(lambda: page.text("kept-of"))
        texts = int(page.text("kept-of").split()[-1])
        page.set("slider", 0)
        page.wait(lambda: page.text("kept-of") == f"{texts} of {texts}")
        page.set("slider", 1)
        page.wait(lambda: page.text("kept-of") == f"0 of {texts}")
        assert page.text("precision-interval") == "no labels"
        page.set("slider", 0.25)
        page.wait(lambda: page.text("limit") is not None and page.text("kept-of")[:2] != "0 ")
        (button,) = page.all("#take")
        button.click()
        page.wait(lambda: page.text("taken"))
        (config,) = hostile.glob("select_itm_0.25_all.yaml")
        assert str(config) in page.text("taken")
        page.open()
        page.wait(lambda: page.text("kept-of")[:2] != "0 ")
        assert page.driver.execute_script("return document.getElementById('limit').value") == "0.25"


def test_texts_that_are_markup_stay_texts(hostile):
    with served(hostile) as server, browser() as driver:
        page = Page(driver, f"http://127.0.0.1:{server.port}/")
        page.set("of", "web")
        page.set("words", "onerror")
        page.wait(lambda: "24 left" in page.text("progress"))
        assert page.said()[0].startswith(ATTACK)
        assert page.driver.title == "Review of out"
        assert len(page.all("img")) == 1
        assert len(page.all("script")) == 1
        loaded = "return document.getElementById('picture').naturalWidth"
        page.wait(lambda: page.driver.execute_script(loaded) == 4)
        assert [one for one in driver.get_log("browser") if one["level"] == "SEVERE"] == []


def test_the_page_fits_a_telephone(hostile):
    with served(hostile) as server, browser() as driver:
        screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        page = Page(driver, f"http://127.0.0.1:{server.port}/")
        width = "return document.documentElement.scrollWidth"
        assert page.driver.execute_script(width) == 390
