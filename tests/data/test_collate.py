import numpy
import pytest
import torch

from lavis_lite.data.collate import collate, image_number


def sample(**fields):
    return {"image": torch.ones(3, 2, 2), "image_id": 5, "text_input": "a", "key": "k", **fields}


def test_numbers_tensors_and_arrays_are_stacked_and_everything_else_listed():
    batch = collate(
        [
            sample(label=1, score=0.5, flag=True, box=numpy.zeros(4), tags=["a"], name="x"),
            sample(label=2, score=1, flag=False, box=numpy.ones(4), tags=[], name=None),
        ]
    )
    assert batch["image"].shape == (2, 3, 2, 2)
    assert torch.equal(batch["label"], torch.tensor([1, 2]))
    assert torch.equal(batch["score"], torch.tensor([0.5, 1.0]))
    assert torch.equal(batch["flag"], torch.tensor([True, False]))
    assert batch["box"].shape == (2, 4)
    assert batch["tags"] == [["a"], []]
    assert batch["name"] == ["x", None]


def test_unequal_shapes_and_missing_fields_are_lists():
    batch = collate([sample(map=torch.ones(2)), sample(map=torch.ones(3), extra=1)])
    assert [len(value) for value in batch["map"]] == [2, 3]
    assert batch["extra"] == [None, 1]


def test_image_ids_become_the_same_number_in_every_process():
    assert image_number(7) == 7
    assert image_number("coco/7.jpg") == 7286404572815159123
    assert image_number("coco/7.jpg") != image_number("coco/8.jpg")
    batch = collate([sample(image_id="a"), sample(image_id="b"), sample(image_id="a")])
    assert batch["image_id"].dtype == torch.int64
    assert batch["image_id"][0] == batch["image_id"][2] != batch["image_id"][1]
    assert collate([sample(image_id=2**70)])["image_id"].shape == (1,)


def test_answers_are_collated_as_lavis_does():
    samples = [
        {"text_input": "what?", "answers": ["red", "pink"], "weights": [0.7, 0.3]},
        {"text_input": "who?", "answers": ["me"], "weights": [1.0]},
        {"text_input": "why?", "answers": [], "weights": []},
    ]
    batch = collate(samples)
    assert batch["answer"] == ["red", "pink", "me"]
    assert batch["weight"].tolist() == pytest.approx([0.7, 0.3, 1.0])
    assert batch["n_answers"].tolist() == [2, 1, 0]
    assert not {"answers", "weights"} & batch.keys()


def test_a_video_is_a_stack_of_frames():
    batch = collate([{"image": torch.zeros(4, 3, 8, 8)}, {"image": torch.ones(4, 3, 8, 8)}])
    assert batch["image"].shape == (2, 4, 3, 8, 8)
