"""JSON objects that hold rows: COCO's ids, and image file -> caption."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.files.cells import row_id
from lavis_lite.errors import DataError, listed


@pytest.fixture
def opened(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)

    def open_(content):
        (tmp_path / "x.json").write_text(json.dumps(content))
        return registry.build("dataset", {"name": "json", "path": str(tmp_path / "x.json")})

    return open_


def pairs(dataset):
    return [(row["image"].rpartition("/")[2], row["text_input"]) for row in dataset]


def coco(images, annotations):
    return {
        "images": [{"id": number, "file_name": f"{name}.png"} for number, name in images],
        "annotations": [{"image_id": number, "caption": text} for number, text in annotations],
    }


def test_ids_of_coco_are_the_same_as_numbers_and_as_texts(opened):
    dataset = opened(coco([(1, "a"), ("2", "b")], [("1", "red"), (2, "blue"), (1.0, "dark")]))
    assert pairs(dataset) == [("a.png", "red"), ("a.png", "dark"), ("b.png", "blue")]
    assert dataset[0]["image_id"] == 1


def test_captions_of_an_id_that_several_images_have_go_to_none_of_them(opened):
    content = coco([(1, "a"), (1, "b"), (2, "a")], [(1, "red"), (2, "blue")])
    dataset = opened(content)
    assert dataset.counts.set_aside == {"shared id": 3}
    assert dataset[2]["text_input"] == "blue"
    with pytest.raises(DataError, match=r"2 images have the id 1: a\.png, b\.png"):
        dataset[0]
    with pytest.raises(DataError, match=r"annotation .*'red'.* of several images"):
        dataset[3]


def test_an_image_that_is_listed_twice_is_one_image(opened):
    dataset = opened(coco([(1, "a"), (1, "a")], [(1, "red")]))
    assert set(pairs(dataset)) == {("a.png", "red")}
    assert dataset.counts.set_aside == {}


def test_damaged_images_and_annotations_keep_the_others(opened):
    content = coco([(1, "a")], [(1, "red")])
    content["images"] += [{"file_name": "b.png"}, 7]
    content["annotations"] += [{"image_id": 1}, {"image_id": 9, "caption": "lost"}, None]
    counts = opened(content).counts
    assert counts.used == 1
    assert counts.set_aside == {"damaged row": 4, "no such image": 1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"a.png": {"caption": "one", "tags": "x"}}, [("a.png", "one")]),
        ({"a.png": "one", "b.png": ["two", "three"]},
         [("a.png", "one"), ("b.png", "two"), ("b.png", "three")]),
        ({"a.png": ["one"]}, [("a.png", "one")]),
        ({"a.png": "one", "b.png": None}, [("a.png", "one"), ("b.png", "")]),
    ],
)  # fmt: skip
def test_an_object_of_image_files_is_a_row_for_each(opened, content, expected):
    assert pairs(opened(content)) == expected


def test_fields_of_such_an_object_travel_along_and_odd_values_are_set_aside(opened):
    dataset = opened({"a.png": {"caption": "one", "tags": "x"}, "b.png": 3})
    assert dataset[0]["tags"] == "x"
    with pytest.raises(DataError, match=r"^damaged row: .*b\.png: 3, where a caption"):
        dataset[1]


@pytest.mark.parametrize(
    "content",
    [
        {f"name {n}": {"caption": "x"} for n in range(20_000)},
        {f"gone/{n}.jpg": {"caption": "x"} for n in range(20_000)},
        [{f"column {n}" * 20: "x" for n in range(20_000)}],
        [{"image": "a.png", "caption": "x"}, {f"column {n}": "x" for n in range(20_000)}],
    ],
)
def test_no_error_fills_more_than_a_screen(opened, content):
    with pytest.raises(DataError) as caught:
        opened(content)[1]
    assert len(str(caught.value)) < 1500


def test_ids_have_one_form():
    assert [row_id(one) for one in (7, "7", 7.0, "-7")] == [7, 7, 7, -7]
    assert [row_id(one) for one in ("007", "7.5", 7.5, "a", True, "9" * 30)] == [
        *("007", "7.5", "7.5", "a", "True", "9" * 30)
    ]


def test_a_list_in_a_message_is_short():
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(20)).endswith("10, 11 and 8 more")
    assert len(listed(["x" * 10_000])) == 60
