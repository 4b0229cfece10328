"""VQA's accuracy: its normalisation by hand, the averaging against the definition."""

from __future__ import annotations

import random

import pytest

from lavis_lite.metrics.vqa_words import aok_vqa_accuracy, normalise, vqa_accuracy


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes", "yes"),
        ("  Two dogs\n", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("a dog and the cat", "dog and cat"),
        ("The.", ""),
        ("3.5", "3.5"),  # a period before a digit stays
        ("no.", "no"),
        ("u.s.", "us"),
        ("1,000", "1000"),  # in a number, any mark leaves no gap
        ("1,000 x-rays", "1000 xrays"),
        ("red,blue", "red blue"),  # elsewhere a gap
        ("red, blue", "red blue"),  # beside a space none, and the space is there
        ("t-shirt", "t shirt"),
        ("left / right", "left right"),
        ("really?!", "really"),
        ("10:30", "10:30"),  # no mark of its list
        ("$5", "$5"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # with two apostrophes missing it is not known
        ("y'alldve", "y'alldve"),
        ("Twas", "'twas"),
        ("dog's", "dog's"),
        ("somebody'd", "somebodyd"),  # its one entry the other way round
        ("its", "its"),
        ("a\tbig\nhouse", "big house"),
    ],
)
def test_an_answer_is_normalised_as_officially(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


def test_normal_words_are_normal() -> None:
    for answer in ("2 dogs cat", "don't", "1000 xrays", "'ow's'at"):
        assert normalise(answer) == answer


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_ten_choose_nine(matches: int, expected: float) -> None:
    references = ["red"] * matches + [f"other {n}" for n in range(10 - matches)]
    assert vqa_accuracy("red", references) == pytest.approx(expected)


def by_definition(answer: str, references: list[str]) -> float:
    """The mean over all subsets without one person, counted anew for each."""
    if len(set(references)) > 1:
        answer, references = normalise(answer), [normalise(r) for r in references]
    scores = []
    for left_out in range(len(references)):
        others = [r for n, r in enumerate(references) if n != left_out]
        scores.append(min(sum(r == answer for r in others) / 3, 1))
    return sum(scores) / len(scores)


def test_accuracy_is_what_its_definition_says() -> None:
    rng = random.Random(0)
    said = ["yes", "Yes", "no", "two", "2", "a dog", "dog", "dogs.", "2 dogs"]
    for _ in range(2000):
        number = rng.choice([4, 9, 10])
        references = [rng.choice(said[: rng.randint(1, 9)]) for _ in range(number)]
        answer = rng.choice(said)
        assert vqa_accuracy(answer, references) == pytest.approx(by_definition(answer, references))


def test_where_all_agree_words_are_compared_as_they_are() -> None:
    assert vqa_accuracy("the dog", ["dog"] * 10) == 0
    assert vqa_accuracy("the dog", ["dog"] * 9 + ["cat"]) == 1
    assert vqa_accuracy(" dog\n", ["dog"] * 10) == 1


def test_few_people_count_by_their_share() -> None:
    assert vqa_accuracy("Two", ["2"]) == 1
    assert vqa_accuracy("three", ["2"]) == 0
    assert vqa_accuracy("2", ["2", "3"]) == 0.5
    assert vqa_accuracy("2", ["two", "2", "3"]) == pytest.approx(2 / 3)


def test_aok_vqa_takes_exact_words_and_three_people() -> None:
    references = ["dog", "dog", "Dog", *["cat"] * 7]
    assert aok_vqa_accuracy("dog", references) == pytest.approx(2 / 3)
    assert aok_vqa_accuracy("cat", references) == 1
    assert aok_vqa_accuracy("a cat", references) == 0
