"""Every metric says of how many samples its figures are, and why the others are not among them."""

from __future__ import annotations

import contextlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from lavis_lite import registry
from lavis_lite.data.counts import Counts
from lavis_lite.data.loader import EvalData, Processors
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.errors import DataError, NotFinite
from lavis_lite.metrics.finite import ask_each

RUNNER = SimpleNamespace(
    device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext, output_dir=None
)
SHADES = (40, 80, 120, 160, 200, 240)
TEXTS = ("one", "two", "three", "", "five", "six")
NAN, UNREADABLE, EMPTY = 1, 2, 3  # rows


class Rows:
    """Grey images: the model gives NaN for one, one cannot be read and one has no text."""

    name = "rows"
    class_names = ("a", "b", "c", "d", "e", "f")

    def __len__(self) -> int:
        return len(SHADES)

    def annotation(self, index: int) -> dict[str, Any]:
        text = TEXTS[index]
        return {
            "key": f"k{index}",
            "image_id": index,
            "text_input": text,
            "label": index,
            "question_id": index,
            "references": [text] if text else [],
            "scores": [[1, 2, 1], [4, 4, 3]][index % 2] if text else [],
        }

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.annotation(index)
        if index == UNREADABLE:
            raise DataError("missing file: nowhere.png")
        return {**row, "image": Image.new("RGB", (2, 2), (SHADES[index],) * 3)}

    def facts(self, text: str) -> frozenset[str] | None:
        return frozenset({f"said={text}"}) if text else None


class Knower(nn.Module):
    """Tells the row from the shade of the image; NaN where the image is that of row ``NAN``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def numbers(self, image: torch.Tensor) -> list[int]:
        shades = (image.mean((1, 2, 3)) * 255).round().int().tolist()
        return [SHADES.index(shade) for shade in shades]

    def one_hot(self, rows: list[int]) -> torch.Tensor:
        found = torch.eye(len(SHADES))[rows]
        found[torch.tensor([row == NAN for row in rows])] = torch.nan
        return found

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return self.one_hot(self.numbers(image))[:, None]

    def image_features(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0]

    def tokenize(self, texts: list[str]) -> Any:
        return Ids(torch.tensor([[TEXTS.index(text)] for text in texts]))

    def encode_text(self, texts: Any) -> torch.Tensor:
        if not isinstance(texts, Ids):
            return torch.eye(len(SHADES))[:, None][: len(texts)]
        return torch.eye(len(SHADES))[texts.ids]

    def text_features(self, states: torch.Tensor) -> torch.Tensor:
        return states[:, 0]

    def match(self, tokens: torch.Tensor, texts: list[str]) -> torch.Tensor:
        own = tokens[range(len(texts)), 0, [TEXTS.index(text) for text in texts]]
        return torch.stack([1 - own, own], 1)

    def rank(self, tokens: torch.Tensor, texts: Any) -> torch.Tensor:
        return tokens[:, 0].gather(1, texts.ids.reshape(len(tokens), -1))

    def generate(self, samples: dict[str, Any]) -> list[str]:
        rows = self.numbers(samples["image"])
        if NAN in rows:
            raise NotFinite("the logits of a text", [rows.index(NAN)])
        return [TEXTS[row] or "none" for row in rows]

    def predict_answers(self, samples: dict[str, Any], answer_list: Any = None, **_: Any) -> list:
        return self.generate(samples)

    def predict(self, samples: dict[str, Any]) -> dict[str, Any]:
        return {"predictions": self.one_hot(self.numbers(samples["image"]))}


class Ids:
    """The shape of a text batch: one word each."""

    def __init__(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        self.ids = ids
        self.mask = torch.ones_like(ids) if mask is None else mask

    def to(self, device: Any) -> Ids:
        return self

    def _replace(self, ids: torch.Tensor, mask: torch.Tensor) -> Ids:
        return Ids(ids, mask)


def data(batch_size: int = 4) -> EvalData:
    def pixels(image: Image.Image, rng: Any = None) -> torch.Tensor:
        return torch.full((3, 2, 2), image.getpixel((0, 0))[0] / 255)

    processors = Processors(image=pixels, text=lambda text, rng=None: text)
    return EvalData(Rows(), processors, batch_size=batch_size, quarantine=Quarantine(None, 1.0))


@pytest.mark.parametrize("name", sorted(registry.names("metric")))
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_metric_accounts_for_every_sample(name: str, batch_size: int) -> None:
    if not registry.entry("metric", name).builder.__module__.startswith("lavis_lite."):
        pytest.skip("a plug-in of other tests: the runner counts for it")
    metric = registry.build("metric", {"name": name})
    result = metric.evaluate(Knower(), data(batch_size), RUNNER)
    assert result.counts, f"{name} does not say of how many its figures are"
    for unit, count in result.counts.items():
        assert count.seen == len(SHADES), (unit, count)
        assert count.set_aside == {"not finite": 1, "missing file": 1}, (unit, count)
    figures = result.metrics
    assert all(torch.tensor(value).isfinite() for value in figures.values()), figures


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("retrieval", {"no text": 1}),
        ("itm", {"no text": 1}),
        ("caption", {"no reference": 1}),
        ("facts", {"no readable reference": 1}),
        ("vqa", {"no people's answer": 1}),
        ("classification", {}),
        ("nlvr", {}),
        ("zero_shot_classification", {}),
        ("judgements", {"no judgement": 1}),
    ],
)
def test_what_has_nothing_to_judge_is_left_out_by_a_named_rule(name: str, left_out: dict) -> None:
    result = registry.build("metric", {"name": name}).evaluate(Knower(), data(), RUNNER)
    count = next(iter(result.counts.values()))
    assert count.left_out == left_out
    assert count.used == len(SHADES) - 2 - sum(left_out.values())


def test_retrieval_counts_texts_too_and_finds_all_that_it_ranks() -> None:
    result = registry.build("metric", {"name": "retrieval"}).evaluate(Knower(), data(), RUNNER)
    assert result.metrics["txt_r1"] == result.metrics["img_r1"] == 100
    texts = result.counts["texts"]
    assert texts.left_out == {"empty text": 1}
    assert texts.used == 3


@pytest.mark.parametrize("name", ["retrieval", "itm"])
def test_without_any_text_there_is_no_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.TEXTS", ("",) * len(SHADES))
    with pytest.raises(DataError, match=r"none of the images is left: 0 of 6 .*6 \(no text\)"):
        registry.build("metric", {"name": name}).evaluate(Knower(), data(), RUNNER)


def test_an_old_result_still_unpacks_as_four() -> None:
    result = registry.build("metric", {"name": "itm"}).evaluate(Knower(), data(), RUNNER)
    figures, rows, submission, missing = result
    assert figures is result.metrics
    assert rows is result.predictions
    assert submission is None
    assert missing == {}


def test_a_count_is_spelled_with_its_reasons() -> None:
    assert Counts(3, 3).spell("images") == "3 images"
    partial = Counts(5, 2, {"missing file": 2}, {"empty text": 1})
    assert partial.spell("texts") == (
        "2 of 5 texts used; set aside: 2 (missing file); left out: 1 (empty text)"
    )


def test_rows_without_numbers_are_asked_about_no_more_and_the_others_are() -> None:
    asked = []

    def ask(rows: list[int]) -> list[int]:
        asked.append(rows)
        if bad := [place for place, row in enumerate(rows) if row % 2][:1]:
            raise NotFinite("numbers", bad)
        return [10 * row for row in rows]

    assert ask_each(ask, 4) == [0, None, 20, None]
    assert asked == [[0, 1, 2, 3], [0, 2, 3], [0, 2]]


def test_setting_aside_without_a_quarantine_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from lavis_lite.metrics.counts import row_count, set_aside

    bare = SimpleNamespace(dataset=[1, 2, 3])
    with caplog.at_level(logging.WARNING):
        set_aside(bare, 1, None, "broken: because")  # type: ignore[arg-type]
    assert "row 1 is set aside: broken" in caplog.text
    assert row_count(bare, [0, 2]) == Counts(3, 2, {"broken": 1})  # type: ignore[arg-type]
