import re
from collections import Counter

import numpy
import pytest

from lavis_lite.data.by_name import load_dataset
from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.data.scenes.vqa import ScenesVqa
from lavis_lite.data.scenes.world import BACKGROUNDS, COLOURS, LEVELS, SHAPES, SIZES
from lavis_lite.errors import ConfigError

VALUES = {"size": SIZES, "colour": COLOURS, "shape": SHAPES}


def read_description(words):
    """Part -> value of `large red circles`, read independently of how it was written."""
    found = {}
    for word in words.split():
        singular = word.removesuffix("es") if word == "crosses" else word.removesuffix("s")
        for part, values in VALUES.items():
            for value in (word, singular):
                if value in values:
                    found[part] = value
    return found


def matching(scene, words):
    described = read_description(words)
    return [
        place
        for place, thing in enumerate(scene.things)
        if all(getattr(thing, part) == value for part, value in described.items())
    ]


def place(scene, number):
    """Where the picture shows a thing: the drawing's centres say it."""
    from lavis_lite.data.scenes.drawing import _CENTRES

    centres = _CENTRES[scene.relation, scene.third]
    x, y = centres[number]
    other = [c for n, c in enumerate(centres) if n != number]
    places = set()
    places |= {"left"} if all(x < c[0] for c in other) else set()
    places |= {"right"} if all(x > c[0] for c in other) else set()
    places |= {"top"} if all(y < c[1] for c in other) else set()
    places |= {"bottom"} if all(y > c[1] for c in other) else set()
    return places


def answer(scene, question):
    """What is right by looking at the scene."""
    if "background" in question:
        return {scene.background}
    if found := re.fullmatch(r"how many (.*) are there\?", question):
        return {str(len(matching(scene, found[1])))}
    if found := re.fullmatch(r"is there an? (.*)\?", question):
        return {"yes" if matching(scene, found[1]) else "no"}
    if found := re.fullmatch(r"is the (.*) (left of|right of|above|below) the (.*)\?", question):
        (one,), (other,) = matching(scene, found[1]), matching(scene, found[3])
        first_is = {"left": ("left of", "right of"), "above": ("above", "below")}[scene.relation]
        return {"yes" if found[2] == first_is[one > other] else "no"}
    found = re.fullmatch(
        r"(?:what (colour|shape) is|where is|is) the (.*?)( small or large)?\?", question
    )
    (thing,) = matching(scene, found[2])
    if question.startswith("where"):
        return place(scene, thing)
    return {getattr(scene.things[thing], found[1] or "size")}


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_every_answer_is_right(level):
    dataset = ScenesVqa("human", size=1500, level=level)
    for index in range(len(dataset)):
        scene, question = dataset.question(index)
        assert question.answer in answer(scene, question.text), question


def test_rows_carry_ten_answers_and_their_weights():
    dataset = ScenesVqa("human", size=500)
    kinds = Counter()
    for index in range(len(dataset)):
        row = dataset.annotation(index)
        kinds[row["question_type"], row["answer_type"]] += 1
        assert len(row["references"]) == 10
        assert sum(row["weights"]) == pytest.approx(1)
        shares = {a: row["references"].count(a) / 10 for a in row["answers"]}
        assert shares == pytest.approx(dict(zip(row["answers"], row["weights"], strict=True)))
        assert set(row["answers"]) <= set(dataset.answer_list)
    assert {kind for kind, _ in kinds} == {
        *("colour", "shape", "size", "where", "count", "background", "exists", "relation")
    }
    assert {t for k, t in kinds if k in ("exists", "relation")} == {"yes/no"}
    assert {t for k, t in kinds if k == "count"} == {"number"}
    assert any(len(dataset.annotation(i)["answers"]) > 1 for i in range(50))


def test_yes_and_no_are_about_equally_frequent():
    dataset = ScenesVqa("human", size=2000)
    answers = [dataset.question(i)[1] for i in range(len(dataset))]
    said = Counter(q.answer for q in answers if q.answer_type == "yes/no")
    assert said["yes"] / said.total() == pytest.approx(0.5, abs=0.06)


def test_the_pictures_are_those_of_scenes_and_a_larger_size_only_appends():
    small, large = ScenesVqa("test", size=20), ScenesVqa("test", size=60)
    assert [small.annotation(i) for i in range(20)] == [large.annotation(i) for i in range(20)]
    pictures = Scenes("test", size=20)
    assert all(numpy.array_equal(small[i]["image"], pictures[i]["image"]) for i in range(3))
    assert small[3]["question_id"] == 3


@pytest.mark.parametrize("level", sorted(LEVELS))
def test_no_scene_of_the_test_is_trained_on(level):
    human, test = (ScenesVqa(s, size=300, level=level) for s in ("human", "test"))
    assert not {human.question(i)[0] for i in range(300)} & {
        test.question(i)[0] for i in range(300)
    }


def test_splits_and_settings_are_checked():
    splits = load_dataset("scenes_vqa")
    assert {split: len(dataset) for split, dataset in splits.items()} == {
        "human": 4000,
        "test": 600,
    }
    with pytest.raises(ConfigError, match=r"scenes_vqa: no split 'tset'\. Did you mean 'test'"):
        ScenesVqa("tset")
    assert set(ScenesVqa("test").answer_list) >= {"yes", "2", "gray", *BACKGROUNDS}
    assert "white" not in ScenesVqa("test").answer_list
    assert "white" in ScenesVqa("test", level="hard").answer_list
