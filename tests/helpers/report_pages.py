"""Pages of reports as tests read them, and runs to make them of."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ELEMENTS = """
    html head meta title style body header main footer section nav div p h1 h2 h3 dl dt dd small
    span a pre s b i ol li table caption thead tbody tr th td figure figcaption img
    svg desc g path text
"""


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


def nothing_active(page: Page) -> None:
    """Nothing on a page runs, loads or leads away, and elements are those of the templates."""
    assert {name for name, _ in page.elements} <= set(ELEMENTS.split())
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")
        assert "javascript:" not in (attributes.get("style") or "")


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
