"""The metric `itm`: true pairs against falsely paired ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.itm import ImageTextMatching, area_under_curve

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)


class Reader(nn.Module):
    """Finds with logit 2 that an image fits the text that is its number, else with logit -1."""

    def __init__(self, blind_to: int = -1) -> None:
        super().__init__()
        self.blind_to = blind_to

    def encode_image(self, image: Tensor) -> Tensor:
        return image.flatten(2).mT

    def match(self, image_tokens: Tensor, text: list[str]) -> Tensor:
        shown = image_tokens[:, 0, 0].int().tolist()
        fits = [str(n) == t and n != self.blind_to for n, t in zip(shown, text, strict=True)]
        return torch.tensor([[0.0, 2.0 if fit else -1.0] for fit in fits])


class Data:
    """Image n shows n and says it, twice."""

    def __init__(self, texts: Sequence[str], batch_size: int = 2) -> None:
        self.dataset = [
            {"image_id": n, "key": f"{n}-{r}", "text_input": text if r == 0 else "again"}
            for n, text in enumerate(texts)
            for r in range(2)
        ]
        self.batch_size = batch_size

    def batches(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(indices), self.batch_size):
            part = indices[start : start + self.batch_size]
            shown = torch.tensor([float(self.dataset[i]["image_id"]) for i in part])
            yield {"image": shown[:, None, None, None].expand(-1, 3, 2, 2), "index": part}


NUMBERS = ["0", "1", "2", "3"]


def test_a_perfect_model_is_right_about_all_pairs() -> None:
    figures, rows, *_ = ImageTextMatching().evaluate(Reader(), Data(NUMBERS), RUNNER)
    assert figures == {
        "accuracy": 1,
        "auc": 1,
        "matched": pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=1e-5),
        "mismatched": pytest.approx(torch.tensor(-1.0).sigmoid().item(), abs=1e-5),
    }
    assert [row["text"] for row in rows] == NUMBERS
    assert all(row["other_text"] in NUMBERS and row["other_text"] != row["text"] for row in rows)


def test_a_miss_counts() -> None:
    figures, _, *_ = ImageTextMatching().evaluate(Reader(blind_to=2), Data(NUMBERS), RUNNER)
    assert figures["accuracy"] == 7 / 8
    assert figures["auc"] == (3 * 4 + 1 * 4 / 2) / 16


def test_false_pairs_are_the_same_for_every_batch_and_differ_by_seed() -> None:
    def pairs(seed: int, batch_size: int) -> list[str]:
        data = Data([str(n) for n in range(12)], batch_size)
        rows = ImageTextMatching(seed=seed).evaluate(Reader(), data, RUNNER).predictions
        return [row["other_text"] for row in rows]

    assert pairs(0, 2) == pairs(0, 7)
    assert pairs(0, 2) != pairs(1, 2)


def test_equal_texts_of_different_images_are_no_false_pair() -> None:
    rows = ImageTextMatching().evaluate(Reader(), Data(["x", "x", "x", "y"]), RUNNER).predictions
    assert [row["other_text"] for row in rows] == ["y", "y", "y", "x"]
    with pytest.raises(DataError, match="needs images with different texts"):
        ImageTextMatching().evaluate(Reader(), Data(["x", "x"]), RUNNER)


def test_captions_of_another_run_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "caption.jsonl"
    written = [{"key": "1-0", "caption": "1"}, {"key": "3-0", "caption": "0"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    figures, rows, *_ = ImageTextMatching(captions=str(path)).evaluate(
        Reader(), Data(NUMBERS), RUNNER
    )
    high, low = torch.tensor([2.0, -1.0]).sigmoid().tolist()
    assert figures["generated"] == pytest.approx((high + low) / 2, abs=1e-5)
    assert [row.get("caption") for row in rows] == [None, "1", None, "0"]
    assert rows[3]["caption_match"] == pytest.approx(low, abs=1e-5)


@pytest.mark.parametrize("text", [None, "not json", '{"key": 1}\n', "3\n"])
def test_a_file_that_holds_no_captions_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "caption.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"itm\.captions: .*caption\.jsonl is no predictions"):
        ImageTextMatching(captions=str(path)).evaluate(Reader(), Data(NUMBERS), RUNNER)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    true, false = numpy.array([0.9, 0.5]), numpy.array([0.1, 0.5, 0.7])
    wins = [(t > f) + 0.5 * (t == f) for t in true for f in false]
    assert area_under_curve(true, false) == pytest.approx(sum(wins) / 6)
