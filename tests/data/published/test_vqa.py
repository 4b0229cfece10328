"""Answers to questions in the forms that files have them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.errors import DataError


@pytest.fixture
def opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def open_(*contents, split="train", name="coco_vqa", **arguments):
        files = []
        for number, content in enumerate(contents):
            files.append(str(tmp_path / f"{number}.json"))
            (tmp_path / f"{number}.json").write_text(json.dumps(content))
        return registry.build(
            "dataset",
            {
                **{"name": name, "annotations": files, "images": str(tmp_path)},
                **{"split": split, **arguments},
            },
        )

    return open_


def question(answer, number=1, **fields):
    return {
        **{"image": "a.png", "question": "how many?", "question_id": number},
        **{"answer": answer, **fields},
    }


@pytest.mark.parametrize(
    ("answer", "answers", "weights"),
    [
        ("red", ["red"], [1.0]),
        (3, ["3"], [1.0]),
        (["red", "red", "blue", 3], ["red", "blue", "3"], [0.5, 0.25, 0.25]),
        (["", "red", " ", None], ["red"], [1.0]),
        ({"red": 0.9, "blue": 0.1, "": 0.5}, ["red", "blue"], [0.9, 0.1]),
        ([{"answer": "red", "answer_id": 1}, {"answer": "blue"}], ["red", "blue"], [0.5, 0.5]),
    ],
)
def test_an_answer_may_be_a_text_a_number_a_list_or_have_weights(opened, answer, answers, weights):
    row = opened([question(answer)])[0]
    assert (row["answers"], row["weights"]) == (answers, weights)
    assert "answer_weights" not in row


def test_weights_of_a_file_win_over_the_one_weight_of_visual_genome(opened):
    weighed, plain = question({"red": 0.7}), question("blue", 2)
    dataset = opened([weighed, plain], name="vg_vqa", answer_weight=0.2)
    assert [row["weights"] for row in dataset] == [[0.7], [0.2]]


@pytest.mark.parametrize("answer", ["", [], [""], None, {}])
def test_a_question_without_an_answer_is_set_aside_in_training_and_asked_in_a_test(opened, answer):
    rows = [question("red"), question(answer, 2)]
    train = opened(rows)
    assert train.counts.set_aside == {"damaged row": 1}
    with pytest.raises(DataError, match="question 2 has no answer to train on"):
        train[1]
    assert opened(rows, split="test")[1]["references"] == []


@pytest.mark.parametrize("answer", [[["red"]], {"red": "much"}, {"red": -1}])
def test_answers_of_another_form_set_their_question_aside(opened, answer):
    dataset = opened([question("red"), question(answer, 2)])
    with pytest.raises(DataError, match=r"^damaged row: .*answer"):
        dataset[1]


def test_questions_and_answers_meet_whether_their_numbers_are_texts(opened, tmp_path):
    (tmp_path / "train2014").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "train2014/COCO_train2014_000000000001.jpg")
    asked = {"questions": [{"question": "x", "question_id": "7", "image_id": "1"}]}
    answers = {"annotations": [{"question_id": 7, "answers": [{"answer": "red"}]}]}
    row = opened({**asked, "data_subtype": "train2014"}, answers)[0]
    assert row["answers"] == ["red"]
    assert row["image"].endswith("train2014/COCO_train2014_000000000001.jpg")
