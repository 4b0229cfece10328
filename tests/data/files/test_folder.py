import json
import logging

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.errors import DataError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "cats"
    (root / "more").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "more/c.webp"):
        Image.new("RGB", (4, 4)).save(root / name)
    return root


def build(path, **arguments):
    return registry.build("dataset", {"name": "folder", "path": str(path), **arguments})


def pairs(dataset, root):
    return [(row["image"].removeprefix(f"{root}/"), row["text_input"]) for row in dataset]


def test_texts_stand_beside_their_images(folder):
    (folder / "a.txt").write_text("a cat\n")
    (folder / "b.caption").write_text("two cats")
    side = {"caption": "a far cat", "score": 0.5, "image": "elsewhere.png"}
    (folder / "more" / "c.json").write_text(json.dumps(side))
    dataset = build(folder)
    assert pairs(dataset, folder) == [
        ("a.png", "a cat"),
        ("b.JPG", "two cats"),
        ("more/c.webp", "a far cat"),
    ]
    assert dataset[2]["score"] == 0.5
    assert len({row["image_id"] for row in dataset}) == 3
    assert dataset.decode(dataset[2]["image"]).size == (4, 4)


def test_images_without_text_are_counted_and_kept(folder, caplog):
    (folder / "a.txt").write_text("a cat")
    with caplog.at_level(logging.WARNING):
        dataset = build(folder)
    assert len(dataset) == 3
    assert "2 of 3 images have no text" in caplog.text


def test_images_alone_are_a_dataset_without_texts(folder, caplog):
    assert [row["text_input"] for row in build(folder)] == ["", "", ""]
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "a.png", "text": "a cat"}\n'),
        ("metadata.csv", "file_name,text\na.png,a cat\n"),
        ("captions.json", '[{"image": "a.png", "caption": "a cat"}]'),
        ("captions.txt", "a.png#0\ta cat\n"),
        ("captions.txt", "image,caption\na.png,a cat\n"),
        ("captions.tsv", "image\tcaption\na.png\ta cat\n"),
    ],
)
def test_one_file_may_have_all_captions(folder, name, content):
    (folder / name).write_text(content)
    assert pairs(build(folder), folder) == [("a.png", "a cat")]
    assert len(build(folder, captions="")) == 3


def test_a_captions_file_by_another_name(folder):
    (folder / "mine.csv").write_text("pic,words,kind\na.png,a cat,1\nb.JPG,two cats,2\n")
    dataset = build(folder, captions="mine.csv", image="pic", text="words", where={"kind": 2})
    assert pairs(dataset, folder) == [("b.JPG", "two cats")]
    with pytest.raises(DataError, match=r"Did you mean 'mine\.csv'"):
        build(folder, captions="mien.csv")


def test_what_is_wrong_is_said(folder):
    with pytest.raises(DataError, match=r"catz: no such folder.*Did you mean 'cats'"):
        build(folder.parent / "catz")
    (folder.parent / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in it"):
        build(folder.parent / "empty")
    (folder / "a.json").write_text("[")
    with pytest.raises(DataError, match=r"^damaged json: .*a\.json: not a JSON object"):
        build(folder)[0]
    (folder / "captions.txt").write_text("a.png\tx\nnonsense\n")
    with pytest.raises(DataError, match=r"^damaged row: .*captions\.txt:2: no tab"):
        build(folder)[1]


def test_images_that_the_table_lists_not_have_their_own_text_or_are_counted(folder, caplog):
    (folder / "metadata.csv").write_text("file_name,text\na.png,of the table\n")
    (folder / "a.txt").write_text("beside a")
    (folder / "b.txt").write_text("beside b")
    dataset = build(folder)
    assert pairs(dataset, folder) == [("a.png", "of the table"), ("b.JPG", "beside b")]
    assert dataset.counts.left_out == {"not listed in metadata.csv": 1}
    assert "2 of 3 used; left out: 1 (not listed in metadata.csv)" in caplog.text
    named = build(folder, captions="metadata.csv")  # the choice of whoever names it
    assert pairs(named, folder) == [("a.png", "of the table")]
    assert named.counts.left_out == {"not listed in metadata.csv": 2}


def test_a_table_in_a_folder_below_speaks_of_the_images_there(folder):
    (folder / "metadata.csv").write_text("file_name,text\na.png,one\n")
    (folder / "more" / "captions.txt").write_text("c.webp#0\ttwo\nc.webp#1\tthree\n")
    (folder / "b.txt").write_text("four")
    expected = [("a.png", "one"), ("more/c.webp", "two"), ("more/c.webp", "three")]
    assert pairs(build(folder), folder) == [*expected, ("b.JPG", "four")]
    assert build(folder).counts.left_out == {}
    assert len({row["key"] for row in build(folder)}) == 4


def test_a_table_of_something_else_in_a_folder_below_is_a_problem_and_no_end(folder):
    (folder / "more" / "metadata.csv").write_text("camera,lens\nx,y\n")
    (folder / "more" / "c.txt").write_text("a far cat")
    dataset = build(folder)
    assert pairs(dataset, folder) == [("a.png", ""), ("b.JPG", ""), ("more/c.webp", "a far cat")]
    assert "no column of the images" in dataset.problems[0]
    (folder / "metadata.csv").write_text("camera,lens\nx,y\n")
    with pytest.raises(DataError, match="no column of the images"):
        build(folder)


def test_of_two_tables_in_a_folder_the_second_is_a_problem(folder):
    for name in ("metadata.csv", "captions.csv"):
        (folder / name).write_text(f"image,caption\na.png,of {name}\n")
    dataset = build(folder)
    assert pairs(dataset, folder) == [("a.png", "of metadata.csv")]
    assert [one.rpartition("/")[2] for one in dataset.problems] == [
        "captions.csv: not read, as metadata.csv comes first"
    ]


def test_a_table_may_list_images_by_their_whole_paths(folder):
    (folder / "captions.txt").write_text(f"{folder}/more/c.webp\tx\n")
    assert build(folder).counts.left_out == {"not listed in captions.txt": 2}
