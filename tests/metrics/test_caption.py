"""The metric `caption`: every image described once and scored, whatever the batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_processes import run_on_processes

from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics import caption as caption_module
from lavis_lite.metrics.caption import Caption, caption_scores

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)
WORDS = ["a red dog runs fast", "the cat sat on the mat", "two men play football", "a big boat"]


class Captioner(nn.Module):
    """Says the sentence whose number the image shows; draws another where it gets seeds."""

    def generate(
        self, samples: dict[str, Any], style: str = "plain", seeds: list[int] | None = None
    ) -> list[str]:
        numbers = samples["image"][:, 0, 0, 0].int().tolist()
        if style == "drawn":
            assert seeds is not None
            numbers = [seed % len(WORDS) for seed in seeds]
        return [WORDS[number] for number in numbers]


class Matcher(Captioner):
    """Also finds that a caption fits with logit 1 for each of its words."""

    def encode_image(self, image: Tensor) -> Tensor:
        return image.flatten(2).mT

    def match(self, image_tokens: Tensor, text: list[str]) -> Tensor:
        return torch.tensor([[0.0, len(words.split())] for words in text])


class Data:
    """Images that show their number; image n has n % 3 references, and the rest is as EvalData."""

    def __init__(self, batch_size: int = 2, unreadable: Sequence[int] = ()) -> None:
        self.dataset = [
            {"image_id": n, "key": f"k{n}-{r}", "text_input": text}
            for n, words in enumerate(WORDS)
            for r, text in enumerate([words.upper() + ".", words + " today"][: n % 3] or [" "])
        ]
        self.batch_size = batch_size
        self.unreadable = unreadable

    def batches(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        good = [i for i in indices if self.dataset[i]["image_id"] not in self.unreadable]
        for start in range(0, len(good), self.batch_size):
            part = good[start : start + self.batch_size]
            shown = torch.tensor([float(self.dataset[i]["image_id"]) for i in part])
            yield {"image": shown[:, None, None, None].expand(-1, 3, 2, 2), "index": part}


def test_perfect_captions_score_as_they_should() -> None:
    result = Caption().evaluate(Captioner(), Data(), RUNNER)
    assert [row["caption"] for row in result.predictions] == WORDS
    assert result.predictions[2] == {
        "index": 2,
        "key": "k2-0",
        "image_id": 2,
        "caption": "two men play football",
        "references": ["TWO MEN PLAY FOOTBALL.", "two men play football today"],
    }
    # Images 0 and 3 have no reference but are described all the same.
    assert [len(row["references"]) for row in result.predictions] == [0, 1, 2, 0]
    references = [[WORDS[1]], [WORDS[2], WORDS[2] + " today"]]
    assert result.metrics == caption_scores(WORDS[1:3], references)
    assert result.metrics["bleu_4"] == pytest.approx(1)
    assert set(result.metrics) == {"bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_what_is_drawn_depends_on_the_image_and_not_on_the_batch(batch_size: int) -> None:
    metric = Caption(generate={"style": "drawn"})
    usual = metric.evaluate(Captioner(), Data(), RUNNER)
    assert metric.evaluate(Captioner(), Data(batch_size), RUNNER) == usual
    other = SimpleNamespace(**{**vars(RUNNER), "seed": 4})
    assert metric.evaluate(Captioner(), Data(), other).predictions != usual.predictions


def _describe() -> Any:
    return Caption(generate={"style": "drawn"}).evaluate(Captioner(), Data(), RUNNER)


def test_two_processes_describe_each_image_once() -> None:
    assert run_on_processes(_describe, world_size=2) == [_describe()] * 2


def test_the_model_is_asked_whether_its_captions_fit() -> None:
    result = Caption(match=True).evaluate(Matcher(), Data(), RUNNER)
    expected = torch.tensor([5.0, 6.0, 4.0, 3.0]).sigmoid()
    assert [r["match"] for r in result.predictions] == pytest.approx(expected.tolist(), abs=1e-5)
    assert result.metrics["match"] == pytest.approx(expected.mean().item(), abs=1e-5)


def test_unreadable_images_are_left_out() -> None:
    result = Caption().evaluate(Captioner(), Data(unreadable=[1, 3]), RUNNER)
    assert [row["image_id"] for row in result.predictions] == [0, 2]
    with pytest.raises(DataError, match="none of the images could be read"):
        Caption().evaluate(Captioner(), Data(unreadable=range(4)), RUNNER)


def test_captions_without_any_reference_are_written_but_not_scored() -> None:
    metrics, rows, *_ = Caption().evaluate(Captioner(), Data(unreadable=[1, 2]), RUNNER)
    assert metrics == {}
    assert len(rows) == 2


def test_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"generate\.styl: .*no 'styl'\. Did you mean 'style'\?"):
        Caption(generate={"styl": "plain"}).check(Captioner())


def test_several_captions_per_image_are_refused() -> None:
    class Many(nn.Module):
        def generate(self, samples: dict[str, Any], **options: Any) -> list[str]:
            return []

    with pytest.raises(ConfigError, match="num_captions: 3; one caption per image is scored"):
        Caption(generate={"num_captions": 3}).check(Many())


def test_a_model_that_cannot_match_is_told_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"requires encode_image, match.*`match: false`"):
        Caption(match=True).evaluate(Captioner(), Data(), RUNNER)


def test_captions_of_numbered_images_are_written_as_the_servers_take_them() -> None:
    _, _, submission, missing = Caption().evaluate(Captioner(), Data(), RUNNER)
    assert submission == [{"image_id": n, "caption": words} for n, words in enumerate(WORDS)]
    assert missing == {}
    named = Data()
    for row in named.dataset:
        row["image_id"] = str(row["image_id"])  # names, as of files
    assert Caption().evaluate(Captioner(), named, RUNNER).submission is None


def test_what_java_gives_stands_beside_the_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def scores(names: list[str], captions: list[str], references: list[list[str]]) -> Any:
        assert names == ["meteor", "spice"]
        assert len(captions) == len(references) == 2  # those with references
        return {"meteor": 0.25}, {"spice": "no java"}

    monkeypatch.setattr(caption_module, "java_scores", scores)
    result = Caption(java=["meteor", "spice"]).evaluate(Captioner(), Data(), RUNNER)
    assert result.metrics["meteor"] == 0.25
    assert "spice" not in result.metrics
    assert result.missing == {"spice": "no java"}
