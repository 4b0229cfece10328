"""The metric `vqa`: every question answered once, and scored or written for the server."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from two_processes import run_on_processes

from lavis_lite.data.loader import EvalData
from lavis_lite.data.reader import Processors
from lavis_lite.data.scenes.vqa import ScenesVqa
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.vqa import Vqa

RUNNER = SimpleNamespace(device=torch.device("cpu"), seed=0, autocast=contextlib.nullcontext)
QUESTIONS = [
    ("what colour is it?", ["red"] * 8 + ["pink"] * 2, "other"),
    ("how many are there?", ["2"] * 2 + ["3"] * 8, "number"),
    ("is it?", ["yes"] * 10, "yes/no"),
    ("who is it?", None, "other"),
    ("is it big?", ["no"] * 9 + ["yes"], "yes/no"),
]
SAID = ["a red", "two", "no", "me", "no"]


class Rows:
    """Five questions; `annotation` has no image, as that of our datasets."""

    answer_list = ["red", "2", "yes", "no", "me"]

    def __init__(self, references: bool = True) -> None:
        self.references = references

    def __len__(self) -> int:
        return len(QUESTIONS)

    def annotation(self, index: int) -> dict[str, Any]:
        question, references, kind = QUESTIONS[index]
        row = {"text_input": question, "key": f"k{index}", "question_id": 100 + index}
        row |= {"image_id": index, "answer_type": kind}
        return {**row, "references": references or []} if self.references else row


class Data:
    def __init__(self, batch_size: int = 2, references: bool = True) -> None:
        self.dataset: Any = Rows(references)
        self.batch_size = batch_size
        self.unreadable: Sequence[int] = ()

    def batches(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        good = [index for index in indices if index not in self.unreadable]
        for start in range(0, len(good), self.batch_size):
            part = good[start : start + self.batch_size]
            texts = [QUESTIONS[index][0] for index in part]
            image = torch.tensor(part)[:, None, None, None].float()
            yield {"image": image, "text_input": texts, "index": part}


class Answerer(nn.Module):
    """Says what it should of the question whose number the image shows."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []

    def predict_answers(
        self, samples: dict[str, Any], num_beams: int = 3, inference_method: str = "rank",
        answer_list: list[str] | None = None,
    ) -> list[str]:  # fmt: skip
        self.asked.append({"method": inference_method, "list": answer_list, "beams": num_beams})
        assert not self.training
        return [SAID[int(number)] for number in samples["image"].flatten()]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_figures_are_in_percent_and_by_type_of_answer(batch_size: int) -> None:
    figures, rows, submission, _ = Vqa().evaluate(Answerer(), Data(batch_size), RUNNER)
    assert figures == pytest.approx(
        {
            "accuracy": 100 * (1 + 0.6 + 0 + 1) / 4,
            "accuracy_number": 60,
            "accuracy_other": 100,
            "accuracy_yes_no": 50,
        }
    )
    assert [row["answer"] for row in rows] == SAID
    assert rows[1] == {
        **{"key": "k1", "index": 1, "question_id": 101, "image_id": 1, "answer_type": "number"},
        **{"question": "how many are there?", "answer": "two", "accuracy": 0.6},
        "references": ["2"] * 2 + ["3"] * 8,
    }
    assert "accuracy" not in rows[3]
    assert submission == [{"question_id": 100 + n, "answer": said} for n, said in enumerate(SAID)]


def test_questions_of_a_test_set_are_answered_and_not_scored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        result = Vqa().evaluate(Answerer(), Data(references=False), RUNNER)
    assert result.metrics == {}
    assert len(result.submission) == 5
    assert "answers are written, not scored" in caplog.text


def test_what_to_choose_from_comes_from_the_dataset_a_file_or_the_config(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"yes": 0, "no": 1}))
    for given, expected in (
        (None, Rows.answer_list),
        (["x", "y"], ["x", "y"]),
        (str(tmp_path / "a.json"), ["yes", "no"]),
    ):
        model = Answerer()
        Vqa(answer_list=given).evaluate(model, Data(), RUNNER)  # type: ignore[arg-type]
        assert model.asked[0] == {"method": "rank", "list": expected, "beams": 3}
    model = Answerer()
    Vqa(predict={"inference_method": "generate", "num_beams": 1}).evaluate(model, Data(), RUNNER)
    assert model.asked[0]["method"] == "generate"
    assert model.asked[0]["beams"] == 1


def test_without_a_list_answers_are_generated_and_rank_is_refused() -> None:
    data = Data()
    data.dataset.answer_list = None
    model = Answerer()
    Vqa().evaluate(model, data, RUNNER)
    assert model.asked[0]["method"] == "generate"
    with pytest.raises(ConfigError, match=r"name one with vqa\.answer_list"):
        Vqa(predict={"inference_method": "rank"}).evaluate(model, data, RUNNER)


def test_the_rule_of_aok_vqa_and_its_servers_format() -> None:
    figures, _, submission, _ = Vqa(rule="aok_vqa").evaluate(Answerer(), Data(), RUNNER)
    assert figures["accuracy"] == pytest.approx(100 * (0 + 0 + 0 + 1) / 4)
    assert submission["101"] == {"direct_answer": "two"}


def test_wrong_arguments_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vqa\.predict\.num_beam: .*Did you mean 'num_beams'"):
        Vqa(predict={"num_beam": 3}).check(Answerer())
    with pytest.raises(ConfigError, match=r"vqa\.rule: 'aokvqa'\. Did you mean 'aok_vqa'"):
        Vqa(rule="aokvqa")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"answer_list: .*nowhere\.json"):
        Vqa(answer_list=str(tmp_path / "nowhere.json"))
    (tmp_path / "n.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="a JSON list of answers is expected"):
        Vqa(answer_list=str(tmp_path / "n.json"))


def test_unreadable_questions_are_left_out() -> None:
    data = Data()
    data.unreadable = [1, 2]
    assert len(Vqa().evaluate(Answerer(), data, RUNNER).predictions) == 3
    data.unreadable = range(5)
    with pytest.raises(DataError, match="none of 5 rows could be read"):
        Vqa().evaluate(Answerer(), data, RUNNER)


def _evaluate() -> Any:
    return Vqa().evaluate(Answerer(), Data(), RUNNER)


def test_two_processes_answer_each_question_once() -> None:
    assert run_on_processes(_evaluate, world_size=2) == [_evaluate()] * 2


class Knower(nn.Module):
    """Knows the scenes: looks the right answer up."""

    def __init__(self, dataset: ScenesVqa) -> None:
        super().__init__()
        self.dataset = dataset

    def predict_answers(self, samples: dict[str, Any], **options: Any) -> list[str]:
        assert set(options["answer_list"]) >= {"yes", "no", "red"}
        return [self.dataset.question(index)[1].answer for index in samples["index"]]


def test_who_knows_the_scenes_is_right() -> None:
    dataset = ScenesVqa("test", size=60)
    processors = Processors(
        image=lambda image, rng: torch.zeros(3, 2, 2), text=lambda t, rng=None: t
    )
    data = EvalData(dataset, processors, batch_size=16)
    figures, rows, _, _ = Vqa().evaluate(Knower(dataset), data, RUNNER)
    assert figures["accuracy"] > 97  # ten people use another word now and then
    assert set(figures) == {"accuracy", *(f"accuracy_{t}" for t in ("number", "other", "yes_no"))}
    assert [row["question_id"] for row in rows] == list(range(60))
