import re
from collections import Counter, defaultdict

import numpy
import pytest
import torch

from lavis_lite import registry
from lavis_lite.data.loader import EvalData, TrainData
from lavis_lite.data.published.nlvr2 import exchange
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.reader import Processors
from lavis_lite.data.scenes.nlvr import ScenesNlvr
from lavis_lite.data.scenes.world import COLOURS, SHAPES, SIZES
from lavis_lite.data.seeding import generator

VALUES = {"size": SIZES, "colour": COLOURS, "shape": SHAPES}
NUMBERS = ["no", "one", "two", "three", "four", "five", "six"]


def how_many(scene, words):
    described = {}
    for word in words.split():
        singular = "cross" if word.startswith("cross") else word.removesuffix("s")
        for part, values in VALUES.items():
            for value in {word, singular} & values.keys():
                described[part] = value
    return sum(
        all(getattr(thing, part) == value for part, value in described.items())
        for thing in scene.things
    )


def is_true(pair, text):
    """Whether a statement holds, read independently of how it was written."""
    left, right = pair
    sides = {"left": left, "right": right}
    if found := re.fullmatch(r"the (left|right) image shows an? (.*)", text):
        return how_many(sides[found[1]], found[2]) > 0
    if found := re.fullmatch(r"(at least one|both|neither) images? shows? an? (.*)", text):
        shown = [how_many(scene, found[2]) > 0 for scene in pair]
        return {"at least one": any(shown), "both": all(shown), "neither": not any(shown)}[found[1]]
    if found := re.fullmatch(r"there (?:is|are) (\w+) (.*) in all", text):
        return sum(how_many(scene, found[2]) for scene in pair) == NUMBERS.index(found[1])
    if found := re.fullmatch(r"there are more (.*) in the (left|right) image than in the .*", text):
        more = how_many(left, found[1]) - how_many(right, found[1])
        return more > 0 if found[2] == "left" else more < 0
    if found := re.fullmatch(r"the background of the (left|right) image is (\w+)", text):
        return sides[found[1]].background == found[2]
    found = re.fullmatch(r"the backgrounds of the two images are (the same|different)", text)
    return (left.background == right.background) == (found[1] == "the same")


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_every_label_is_right(level):
    dataset = ScenesNlvr("human", size=1200, level=level)
    for index in range(len(dataset)):
        pair, statement, holds = dataset.statement(index)
        assert is_true(pair, statement.text) == holds, statement.text
    kinds = Counter(dataset.annotation(i)["statement_type"] for i in range(len(dataset)))
    assert len(kinds) == 8
    assert min(kinds.values()) > 40


def test_nothing_can_be_told_from_the_text_alone():
    dataset = ScenesNlvr("test")
    labels = defaultdict(list)
    for index in range(len(dataset)):
        row = dataset.annotation(index)
        labels[row["text_input"]].append(row["label"])
    assert all(2 * sum(given) == len(given) for given in labels.values())
    # Nor from the place in the pair.
    first = [dataset.annotation(i)["label"] for i in range(0, len(dataset), 2)]
    assert numpy.mean(first) == pytest.approx(0.5, abs=0.1)


def test_a_larger_size_only_appends_and_test_scenes_are_never_trained_on():
    small, large = ScenesNlvr("human", size=10), ScenesNlvr("human", size=100)
    assert [small.annotation(i) for i in range(10)] == [large.annotation(i) for i in range(10)]
    shown = [
        {scene for i in range(300) for scene in ScenesNlvr(split, size=300).statement(i)[0]}
        for split in ("human", "test")
    ]
    assert not shown[0] & shown[1]


def test_exchanging_the_images_keeps_the_label_right():
    dataset = ScenesNlvr("human", size=400)
    exchanged = 0
    for index in range(len(dataset)):
        (left, right), _, holds = dataset.statement(index)
        row = {**dataset.annotation(index), "image0": left, "image1": right}
        row = exchange(row, generator("x", index))
        exchanged += row["image0"] is right
        assert is_true((row["image0"], row["image1"]), row["text_input"]) == holds
    assert 150 < exchanged < 250


def test_words_left_and_right_are_exchanged_as_words():
    row = {"text_input": "Left of the leftmost, right-hand bright", "image0": 0, "image1": 1}
    texts = {exchange(row, generator(seed))["text_input"] for seed in range(20)}
    assert texts == {row["text_input"], "right of the leftmost, left-hand bright"}


def processors():
    image = registry.build("processor", {"name": "blip_image_eval"}, image_size=32)
    return Processors(image=image, text=registry.build("processor", {"name": "blip_caption"}))


def test_batches_have_both_images_and_are_exchanged_in_training_only():
    dataset = ScenesNlvr("human", size=16)
    data = EvalData(dataset, processors(), batch_size=16)
    (batch,) = data.batches()
    assert batch["image0"].shape == batch["image1"].shape == (16, 3, 32, 32)
    assert "image" not in batch
    assert batch["label"].tolist() == [dataset.annotation(i)["label"] for i in range(16)]
    (again,) = data.batches()
    assert torch.equal(batch["image0"], again["image0"])
    training = TrainData(
        [dataset], [None], processors(), batch_size=16, num_workers=0, seed=0,
        quarantine=Quarantine(),
    )  # fmt: skip
    shown = next(training.batches())
    same = [
        torch.equal(shown["image0"][row], batch["image0"][index])
        for row, index in enumerate(shown["index"])
    ]
    assert 0 < sum(same) < 16
