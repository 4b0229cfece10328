"""The answers to a batch's questions: collected, and averaged by their weights."""

from __future__ import annotations

import pytest
import torch

from lavis_lite.errors import DataError
from lavis_lite.losses.answers import answers_of, weigh_answers


def test_answers_are_weighted_and_averaged_over_questions() -> None:
    losses, weights = torch.tensor([2.0, 4.0, 6.0]), torch.tensor([1.0, 0.5, 0.25])
    assert weigh_answers(losses, weights, 2).item() == (2.0 + 2.0 + 1.5) / 2


def test_lists_and_flat_answers_are_the_same_answers() -> None:
    questions = {"text_input": ["what?", "where?"]}
    lists = answers_of(questions | {"answers": [["a", "b"], "c"], "weights": [[0.7, 0.3], [1.0]]})
    flat = answers_of(
        questions | {"answer": ["a", "b", "c"], "weight": [0.7, 0.3, 1.0], "n_answers": [2, 1]}
    )
    assert lists.texts == flat.texts == ["a", "b", "c"]
    assert lists.weights.tolist() == flat.weights.tolist() == pytest.approx([0.7, 0.3, 1.0])
    assert lists.owners.tolist() == flat.owners.tolist() == [0, 0, 1]


def test_answers_that_do_not_fit_their_questions_are_refused() -> None:
    with pytest.raises(DataError, match="3 of them with 3 weights for 1 questions"):
        answers_of({"text_input": ["what?"], "answer": ["a", "b", "c"], "n_answers": [2]})
