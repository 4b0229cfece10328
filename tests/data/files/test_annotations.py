import gzip
import json
import pickle

import numpy
import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.by_name import load_dataset
from lavis_lite.errors import ConfigError, DataError, UnknownName


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "pics").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "pics" / name)
    return tmp_path


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def build(name, **arguments):
    return registry.build("dataset", {"name": name, **arguments})


def texts(dataset):
    return [dataset.annotation(index)["text_input"] for index in range(len(dataset))]


ROWS = [
    {"image": "pics/a.png", "caption": "one", "label": 1},
    {"image": "pics/b.png", "caption": ["two", "also two"], "label": 2},
]


def test_a_list_of_captions_becomes_a_row_for_each(photos):
    dataset = build("json", path=write(photos / "pairs.json", ROWS))
    assert texts(dataset) == ["one", "two", "also two"]
    assert [row["label"] for row in dataset] == [1, 2, 2]
    assert len({row["key"] for row in dataset}) == 3
    first, second, third = (row["image_id"] for row in dataset)
    assert second == third != first
    assert dataset.decode(dataset[1]["image"]).size == (4, 4)
    assert "image" not in dataset.annotation(0)
    assert pickle.loads(pickle.dumps(dataset))[2] == dataset[2]


def test_all_formats_hold_the_same_rows(photos):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"image": "pics/a.png", "caption": 'one, "two"'},
        {"image": "pics/b.png", "caption": "ü"},
    ]
    table = 'image,caption\npics/a.png,"one, ""two"""\npics/b.png,ü\n'
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    with gzip.open(photos / "x.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines)
    parquet.write_table(pyarrow.Table.from_pylist(rows), photos / "x.parquet")
    datasets = [
        build("json", path=write(photos / "x.json", rows)),
        build("json", path=write(photos / "y.json", {"version": 1, "data": rows})),
        build("jsonl", path=write(photos / "x.jsonl", lines)),
        build("jsonl", path=str(photos / "x.jsonl.gz")),
        build("parquet", path=str(photos / "x.parquet")),
        build("csv", path=write(photos / "x.csv", table)),
        build(
            "csv", path=write(photos / "x.tsv", table.replace(",", "\t").replace("one\t", "one,"))
        ),
    ]
    for dataset in datasets:
        assert texts(dataset) == ['one, "two"', "ü"]
        assert [row["image"] for row in dataset] == [
            str(photos / "pics/a.png"),
            str(photos / "pics/b.png"),
        ]


@pytest.mark.parametrize("image", ["image", "image_path", "file_name", "filename"])
@pytest.mark.parametrize("text", ["caption", "text", "text_input", "sentence"])
def test_the_usual_columns_are_recognised(photos, image, text):
    path = write(photos / "x.jsonl", json.dumps({"id": 7, text: "hello", image: "a.png"}))
    row = build("jsonl", path=path, images=str(photos / "pics"))[0]
    assert (row["text_input"], row["image"]) == ("hello", str(photos / "pics/a.png"))
    assert row["id"] == 7


def test_columns_can_be_named(photos):
    rows = [{"pic": "pics/a.png", "words": "x", "uid": "u", "photo": 3, "caption": "not this"}] * 2
    path = write(photos / "x.json", rows)
    dataset = build("json", path=path, image="pic", text="words", key="uid", image_id="photo")
    assert [(r["text_input"], r["key"], r["image_id"]) for r in dataset] == [
        ("x", "u", 3),
        ("x", "u#2", 3),
    ]
    assert texts(build("json", path=path, image="pic", text="")) == ["", ""]


def test_several_files_and_patterns_are_one_dataset(photos):
    for number in (1, 2):
        write(photos / f"part{number}.json", [{"image": "pics/a.png", "caption": f"{number}"}])
    parts = [str(photos / "part1.json"), str(photos / "part2.json")]
    for path in (parts, str(photos / "part*.json")):
        dataset = build("json", path=path)
        assert texts(dataset) == ["1", "2"]
        assert len({row["key"] for row in dataset}) == 2


def test_lavis_annotations_are_read_as_they_are(photos):
    rows = [{"caption": "x", "image": "a.png", "image_id": "coco_42"}]
    dataset = build("json", path=write(photos / "k.json", rows), images=str(photos / "pics"))
    assert dataset.annotation(0)["image_id"] == "coco_42"


def karpathy():
    def picture(name, split, *captions):
        sentences = [{"raw": caption, "tokens": caption.split()} for caption in captions]
        return {
            **{"filepath": "pics", "filename": name, "split": split},
            **{"cocoid": ord(name[0]), "sentences": sentences},
        }

    return {
        "dataset": "coco",
        "images": [
            picture("a.png", "train", "one", "uno"),
            picture("b.png", "restval", "two"),
            picture("c.png", "test", "three"),
        ],
    }


def test_karpathys_splits(photos):
    path = write(photos / "dataset_coco.json", karpathy())
    dataset = build("json", path=path, split=["train", "restval"])
    assert texts(dataset) == ["one", "uno", "two"]
    assert [row["image_id"] for row in dataset] == [97, 97, 98]
    assert texts(build("json", path=path, split="test")) == ["three"]
    with pytest.raises(DataError, match=r"holds several splits; give split: .*'restval': 1"):
        build("json", path=path)
    with pytest.raises(DataError, match=r"leave none of 4 rows.*'train': 2"):
        build("json", path=path, split="val")


def test_cocos_captions(photos):
    data = {
        "images": [{"id": 1, "file_name": "pics/a.png"}, {"id": 2, "file_name": "pics/b.png"}],
        "annotations": [
            {"id": 9, "image_id": 2, "caption": "two"},
            {"id": 8, "image_id": 1, "caption": "one"},
            {"id": 7, "image_id": 1, "caption": "uno"},
        ],
    }
    dataset = build("json", path=write(photos / "coco.json", data))
    assert [(r["image_id"], r["text_input"]) for r in dataset] == [
        (1, "one"),
        (1, "uno"),
        (2, "two"),
    ]
    data["annotations"][0]["image_id"] = 5
    with pytest.raises(DataError, match="no 5"):
        build("json", path=write(photos / "coco.json", data))


def test_images_inside_a_parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    Image.new("RGB", (5, 3), (9, 8, 7)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    rows = [{"image": {"bytes": data, "path": None}, "text": "x"}, {"image": None, "text": "y"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    dataset = build("parquet", path=str(tmp_path / "x.parquet"))
    assert numpy.asarray(dataset.decode(dataset[0]["image"])).shape == (3, 5, 3)
    with pytest.raises(DataError, match="no image"):
        dataset.decode(dataset[1]["image"])
    assert dataset[0]["image_id"] != dataset[1]["image_id"]


def test_the_same_name_in_another_folder_is_another_image(photos):
    (photos / "more").mkdir()
    Image.new("RGB", (4, 4)).save(photos / "more" / "a.png")
    path = write(photos / "x.json", [{"image": "a.png", "caption": "x"}])
    ids = {
        build("json", path=path, images=str(photos / f))[0]["image_id"] for f in ("pics", "more")
    }
    assert len(ids) == 2


def test_decoding_follows_the_datasets_options(photos):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(photos / "pics" / "turned.jpg", exif=exif)
    path = write(photos / "x.json", [{"image": "pics/turned.jpg", "caption": "x"}])
    for arguments, size in (({}, (8, 4)), ({"exif": True}, (4, 8))):
        dataset = build("json", path=path, **arguments)
        assert dataset.decode(dataset[0]["image"]).size == size
    dataset = build("json", path=path, max_pixels=31)
    with pytest.raises(DataError, match="too many pixels"):
        dataset.decode(dataset[0]["image"])


def test_missing_captions_are_empty_texts_not_lost_rows(photos):
    rows = [{"image": "pics/a.png", "caption": caption} for caption in (None, [], "", ["x", None])]
    assert texts(build("json", path=write(photos / "x.json", rows))) == ["", "", "", "x", ""]


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("json", "[]", "there are no rows"),
        ("json", "", "not JSON"),
        ("json", '{"image": "a"}\n{"image": "b"}', "Use name: jsonl"),
        ("json", "3", "a JSON int, where a list of rows"),
        ("json", "[3]", "row 0 is not an object but '3'"),
        ("json", '{"a": 1, "b": 2}', "an object with a, b; expected"),
        ("json", '[{"image": "a.png", "capton": "x"}]', "no column of the texts .*capton"),
        ("json", '[{"picture": "a.png", "caption": "x"}]', "no column of the images"),
        ("json", '[{"image": "a", "caption": "x"}, {"image": "b"}]', "row 1 has no 'caption'"),
        ("json", '[{"image": "nowhere.png", "caption": "x"}]', r"first 1 .*nowhere\.png"),
        ("jsonl", '{"image": "a", "caption": "x"}\n{"image": ', r"x\.jsonl:2: not JSON"),
        ("jsonl", "[1]", r"x\.jsonl:1: not an object"),
        ("csv", "image,caption\na.png,x\nb.png\n", r"x\.csv:3: not as many fields"),
        ("csv", "image,caption\na.png,x,y\n", r"x\.csv:2: .*the header has \(2\)"),
        ("csv", "image,caption\n", "there are no rows"),
        ("parquet", "not parquet at all", "not a parquet file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path, kind, content, message):
    path = write(tmp_path / f"x.{kind}", content)
    with pytest.raises(DataError, match=message) as caught:
        build(kind, path=path)
    assert f"x.{kind}" in str(caught.value) or "nowhere.png" in str(caught.value)


def test_a_missing_file_or_folder_is_named_with_the_nearest(photos):
    path = write(photos / "pairs.json", ROWS)
    with pytest.raises(DataError, match=r"pears\.json: no such file .*Did you mean 'pairs\.json'"):
        build("json", path=str(photos / "pears.json"))
    with pytest.raises(DataError, match="no file matches"):
        build("json", path=str(photos / "z*.json"))
    with pytest.raises(DataError, match="a folder, where a file is expected"):
        build("json", path=str(photos))
    with pytest.raises(DataError, match=r"images: .*pix: no such folder"):
        build("json", path=path, images=str(photos / "pix"))
    with pytest.raises(DataError, match=r"row 0 has no 'labels'\. Did you mean 'label'"):
        build("json", path=path, image_id="labels")


def test_a_choice_of_rows(photos):
    path = write(photos / "pairs.json", ROWS)
    assert texts(build("json", path=path, where={"label": 2})) == ["two", "also two"]
    assert texts(build("json", path=path, where={"label": 2}, limit=1)) == ["two"]
    rows = [{**ROWS[1], "group": number} for number in range(20)]
    path = write(photos / "groups.json", rows)
    folds = [{"by": "group", "of": 2, "take": [part]} for part in (0, 1)]
    one, other = ({row["group"] for row in build("json", path=path, fold=f)} for f in folds)
    assert one | other == set(range(20))
    assert not one & other


def test_load_dataset_gives_splits_by_name(photos):
    scenes = load_dataset("scenes", size=5)
    assert {split: len(dataset) for split, dataset in scenes.items()} == dict.fromkeys(
        ("human", "web", "test"), 5
    )
    assert list(load_dataset("scenes", split="test")) == ["test"]
    rows = [{"image": "a.png", "caption": "x"}]
    config = write(photos / "my.yaml", f"path: {write(photos / 'k.json', rows)}\n")
    own = load_dataset("json", cfg_path=config, vis_path=str(photos / "pics"), data_type="images")
    assert own["train"][0]["text_input"] == "x"
    with pytest.raises(ConfigError, match="data_type 'video'"):
        load_dataset("scenes", data_type="video")
    with pytest.raises(UnknownName, match="Did you mean 'scenes'"):
        load_dataset("scnes")
