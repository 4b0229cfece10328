"""Small files in every published format, read by the dataset of their card."""

import io
import json
import tarfile

import pytest
from PIL import Image

from lavis_lite import registry
from lavis_lite.data.by_name import load_dataset
from lavis_lite.data.loader import EvalData, TrainData
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.data.reader import Processors
from lavis_lite.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    monkeypatch.setenv("LAVIS_LITE_OFFLINE", "1")
    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "data")


class Root:
    """A data folder under construction."""

    def __init__(self, path):
        self.path = path

    def images(self, folder, *names):
        for name in names:
            file = self.path / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), "red").save(file)

    def write(self, name, content):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    def build(self, name, **arguments):
        return registry.build("dataset", {"name": name, "root": str(self.path), **arguments})


def texts(dataset):
    return [dataset.annotation(index)["text_input"] for index in range(len(dataset))]


def readable(dataset):
    """Every image of every row can be decoded."""
    for row in dataset:
        for name in ("image", "image0", "image1"):
            for image in row[name] if isinstance(row.get(name), list) else [row.get(name)]:
                assert image is None or dataset.decode(image).size == (6, 4)
    return True


# ---- captions


def coco(root):
    root.images("coco/images", "val2014/COCO_val2014_000000391895.jpg")
    root.images("coco/images", "train2014/COCO_train2014_000000057870.jpg")
    root.write(
        "coco/annotations/coco_karpathy_train.json",
        [
            {
                **{"caption": text, "image_id": "coco_57870"},
                "image": "train2014/COCO_train2014_000000057870.jpg",
            }
            for text in ("one", "two")
        ],
    )
    image = "val2014/COCO_val2014_000000391895.jpg"
    for split in ("val", "test"):
        row = {"image": image, "caption": [f"{split} {n}" for n in range(5)]}
        root.write(f"coco/annotations/coco_karpathy_{split}.json", [row])


@pytest.mark.parametrize("name", ["coco_caption", "coco_retrieval"])
def test_coco_in_karpathys_splits(root, name):
    coco(root)
    splits = load_dataset(name, vis_path=str(root.path / "coco/images"), root=str(root.path))
    assert list(splits) == ["train", "val", "test"]
    assert texts(splits["train"]) == ["one", "two"]
    assert texts(splits["test"]) == [f"test {n}" for n in range(5)]
    assert {row["image_id"] for row in splits["train"]} == {57870}
    assert {row["image_id"] for row in splits["test"]} == {391895}
    assert all(readable(dataset) for dataset in splits.values())
    assert splits["val"].name == f"{name}-val"


@pytest.mark.parametrize("name", ["coco_retrieval", "flickr30k"])
def test_karpathys_own_file_of_all_splits(root, name):
    root.images("pictures", "val2014/COCO_val2014_000000000042.jpg")
    splits = ("train", "restval", "val", "test")
    rows = [
        {
            **{"filepath": "val2014", "filename": "COCO_val2014_000000000042.jpg"},
            **{"sentences": [{"raw": split}], "split": split, "cocoid": 42},
        }
        for split in splits
    ]
    file = root.write("dataset.json", {"dataset": "coco", "images": rows})
    images = str(root.path / "pictures")
    found = load_dataset(name, vis_path=images, annotations=file)
    assert {split: texts(dataset) for split, dataset in found.items()} == {
        **{"train": ["train", "restval"], "val": ["val"], "test": ["test"]}
    }
    assert {row["image_id"] for dataset in found.values() for row in dataset} == {42}


def test_one_split_is_loaded_alone_and_rows_can_be_chosen(root):
    coco(root)
    only = load_dataset("coco_caption", split="test", root=str(root.path), limit=2)
    assert {split: len(dataset) for split, dataset in only.items()} == {"test": 2}


def test_nocaps_with_the_captions_of_the_benchmark(root):
    root.images("nocaps/images", "val/0013ea2087020901.jpg", "val/00a.jpg", "test/0b.jpg")
    root.write(
        "nocaps/annotations/nocaps_val.json",
        [{"image": "val/0013ea2087020901.jpg", "img_id": 0}, {"image": "val/00a.jpg", "img_id": 4}],
    )
    official = {
        "images": [
            {"id": 0, "file_name": "0013ea2087020901.jpg", "domain": "in-domain"},
            {"id": 4, "file_name": "00a.jpg", "domain": "out-domain"},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "caption": "a hat"},
            {"id": 1, "image_id": 4, "caption": "a gourd"},
            {"id": 2, "image_id": 0, "caption": "a baby"},
        ],
    }
    captions = root.write("nocaps/annotations/nocaps_val_4500_captions.json", official)
    root.write("nocaps/annotations/nocaps_test.json", [{"image": "test/0b.jpg", "img_id": 4500}])
    for dataset in (
        root.build("nocaps", split="val"),
        root.build("nocaps", split="val", annotations=captions),
    ):
        assert [(r["image_id"], r["text_input"], r["domain"]) for r in dataset] == [
            (0, "a hat", "in-domain"),
            (0, "a baby", "in-domain"),
            (4, "a gourd", "out-domain"),
        ]
        assert readable(dataset)
    assert texts(root.build("nocaps", split="val", where={"domain": "out-domain"})) == ["a gourd"]
    test = root.build("nocaps", split="test")
    assert [(r["image_id"], r["text_input"]) for r in test] == [(4500, "")]
    assert readable(test)


@pytest.mark.parametrize("name", ["flickr30k", "flickr30k_caption"])
def test_flickr30k(root, name):
    root.images("flickr30k/images", "flickr30k-images/1.jpg", "flickr30k-images/2.jpg")
    root.write(
        "flickr30k/annotations/flickr30k_train.json",
        [{"image": "flickr30k-images/1.jpg", "caption": "x", "image_id": 5}],
    )
    row = {"image": "flickr30k-images/2.jpg", "caption": list("abcde")}
    root.write("flickr30k/annotations/flickr30k_test.json", [row])
    (train,) = root.build(name, split="train")
    assert (train["text_input"], train["image_id"]) == ("x", 5)
    test = root.build(name, split="test")
    assert texts(test) == list("abcde")
    assert len({r["image_id"] for r in test}) == 1
    assert readable(test)


def test_vg_captions(root):
    root.images("vg/images", "VG_100K/1.jpg")
    row = {"image": "VG_100K/1.jpg", "caption": "the clock is green", "image_id": "vg_1"}
    root.write("vg/annotations/vg_caption.json", [row])
    dataset = load_dataset("vg_caption", root=str(root.path))["train"]
    assert texts(dataset) == ["the clock is green"]
    assert readable(dataset)


def shard(path, *samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, text in samples:
            picture = io.BytesIO()
            Image.new("RGB", (6, 4)).save(picture, "JPEG")
            for extension, data in (
                ("jpg", picture.getvalue()),
                ("txt", text.encode()),
                ("json", json.dumps({"caption": text, "url": "http://x/y.jpg"}).encode()),
            ):
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("name", ["cc3m", "cc12m", "sbu", "laion"])
def test_pairs_of_the_web_come_in_shards(root, name):
    shard(root.path / name / "00000.tar", ("000000000", "a dog"), ("000000001", "a cat"))
    shard(root.path / name / "00001.tar", ("000010000", "a cow"))
    dataset = root.build(name)
    assert texts(dataset) == ["a dog", "a cat", "a cow"]
    assert readable(dataset)
    named = root.build(name, shards=str(root.path / name / "00001.tar"), limit=1)
    assert texts(named) == ["a cow"]


@pytest.mark.parametrize("name", ["cc3m", "cc12m", "sbu"])
def test_pairs_of_the_web_come_as_a_list(root, name):
    root.images(f"{name}/images", "00000/1.jpg")
    row = {"image": "00000/1.jpg", "caption": "a dog"}
    root.write(f"{name}/annotations/{name}.json", [row])
    lavis = {"cc3m": "conceptual_caption_3m", "cc12m": "conceptual_caption_12m"}
    dataset = load_dataset(
        lavis.get(name, "sbu_caption"),
        vis_path=str(root.path / name / "images"),
        root=str(root.path),
    )["train"]
    assert texts(dataset) == ["a dog"]
    assert readable(dataset)
    with pytest.raises(ConfigError, match="give shards, or images and annotations, not both"):
        root.build(name, shards="x.tar", images="y")


def test_laion_has_no_list(root):
    with pytest.raises(ConfigError, match="laion: comes in shards only"):
        root.build("laion", annotations="x.json")


# ---- questions

VAL = "val2014/COCO_val2014_000000000042.jpg"


def vqa_annotation(question_id, answers, **types):
    return {
        "question_id": question_id,
        "image_id": 42,
        "answers": [
            {"answer": a, "answer_confidence": "yes", "answer_id": n + 1}
            for n, a in enumerate(answers)
        ],
        **types,
    }


def test_coco_vqa_to_train_on(root):
    root.images("coco/images", "train2014/COCO_train2014_000000000009.jpg", VAL)
    for split, image in (("train", "train2014/COCO_train2014_000000000009.jpg"), ("val", VAL)):
        row = {"question_id": 1, "question": f"What {split}?", "image": image, "dataset": "vqa"}
        row["answer"] = ["net"] * 7 + ["mesh"] * 2 + ["web"]
        root.write(f"coco/annotations/vqa_{split}.json", [row])
    dataset = root.build("coco_vqa")
    assert texts(dataset) == ["What train?", "What val?"]
    row = dataset[0]
    assert row["answers"] == ["net", "mesh", "web"]
    assert row["weights"] == pytest.approx([0.7, 0.2, 0.1])
    assert dataset.annotation(1)["references"] == ["net"] * 7 + ["mesh"] * 2 + ["web"]
    assert dataset.answer_list is None
    assert readable(dataset)


@pytest.mark.parametrize("order", [1, -1])
def test_coco_vqa_to_evaluate_on_whatever_the_order_of_the_files(root, order):
    root.images("coco/images", VAL)
    files = [
        root.write(
            "coco/annotations/vqa_val_eval.json",
            [{"question_id": 420, "question": "How many?", "image": VAL, "dataset": "vqa"}],
        ),
        root.write("coco/annotations/answer_list.json", ["net", "2", "yes"]),
        root.write(
            "coco/annotations/v2_mscoco_val2014_annotations.json",
            {
                "info": {},
                "data_subtype": "val2014",
                "annotations": [
                    vqa_annotation(420, ["2"] * 10, question_type="how", answer_type="number"),
                    vqa_annotation(421, ["x"] * 10, question_type="what", answer_type="other"),
                ],
            },
        ),
    ]
    for dataset in (
        root.build("coco_vqa", split="val"),
        root.build("coco_vqa", split="val", annotations=files[::order]),
        root.build("coco_vqa", split="val", annotations=str(root.path / "coco/annotations")),
    ):
        (row,) = dataset
        assert (row["question_id"], row["references"]) == (420, ["2"] * 10)
        assert (row["question_type"], row["answer_type"]) == ("how", "number")
        assert dataset.answer_list == ["net", "2", "yes"]
        assert readable(dataset)


def test_vqas_own_questions_are_read(root):
    root.images("coco/images", VAL)
    questions = {"question_id": 420, "question": "How many?", "image_id": 42}
    files = [
        root.write("q.json", {"data_subtype": "val2014", "questions": [questions]}),
        root.write("a.json", {"annotations": [vqa_annotation(420, ["2"] * 10)]}),
    ]
    (row,) = root.build("coco_vqa", split="val", annotations=files)
    assert row["image"].endswith(VAL)
    assert row["answers"] == ["2"]


def test_coco_vqa_of_the_server_has_no_answers(root):
    root.images("coco/images", "test2015/COCO_test2015_000000000001.jpg")
    row = {"question_id": 10, "question": "Who?", "dataset": "vqa"}
    row["image"] = "test2015/COCO_test2015_000000000001.jpg"
    root.write("coco/annotations/vqa_test.json", [row])
    root.write("coco/annotations/answer_list.json", ["net"])
    (row,) = root.build("coco_vqa", split="test")
    assert (row["answers"], row["weights"], row["references"]) == ([], [], [])


def test_vg_answers_count_a_fifth(root):
    root.images("vg/images", "VG_100K/1.jpg")
    row = {"question_id": 9, "question": "What color?", "answer": "Green.", "dataset": "vg"}
    root.write("vg/annotations/vg_qa.json", [{**row, "image": "VG_100K/1.jpg"}])
    (found,) = root.build("vg_vqa")
    assert (found["answers"], found["weights"]) == (["Green."], [0.2])
    (found,) = root.build("vg_vqa", answer_weight=1.0)
    assert found["weights"] == [1.0]


def test_ok_vqa(root):
    root.images("coco/images", VAL)
    row = {"question_id": 420, "question": "Which race?", "image": VAL, "dataset": "okvqa"}
    root.write("okvqa/annotations/okvqa_train.json", [{**row, "answer": ["race"] * 10}])
    root.write("okvqa/annotations/okvqa_val_eval.json", [row])
    root.write("okvqa/annotations/okvqa_answer_list_train.json", ["race", "run"])
    root.write(
        "okvqa/annotations/mscoco_val2014_annotations.json",
        {"annotations": [vqa_annotation(420, ["race"] * 6 + ["run"] * 4)]},
    )
    splits = load_dataset("ok_vqa", root=str(root.path))
    assert {split: row[0]["answers"] for split, row in splits.items()} == {
        "train": ["race"],
        "test": ["race", "run"],
    }
    assert splits["test"].answer_list == ["race", "run"]


def test_aok_vqa_of_lavis_and_as_published(root):
    root.images("coco/images", "train2017/000000299207.jpg", VAL)
    row = {
        **{"question_id": "22MexNkBPpdZGX6sxbxVBH", "question": "Where?", "split": "train"},
        **{"choices": ["sea", "car", "sky", "bed"], "correct_choice_idx": 1, "image_id": 299207},
        "direct_answers": ["ride"] * 6 + ["car"] * 4,
    }
    root.write("aokvqa/annotations/aokvqa_v1p0_train.json", [row, {**row, "image": VAL}])
    first, second = root.build("aok_vqa")
    assert first["image"].endswith("train2017/000000299207.jpg")
    assert second["image"].endswith(VAL)
    assert first["weights"] == pytest.approx([0.6, 0.4])
    assert first["choices"][first["correct_choice_idx"]] == "car"
    del row["direct_answers"], row["correct_choice_idx"]
    root.images("coco/images", "test2017/000000299207.jpg")
    root.write("aokvqa/annotations/aokvqa_v1p0_test.json", [{**row, "split": "test"}])
    root.write("aokvqa/annotations/specialized_vocab_train.json", {"ride": 0, "car": 1})
    test = root.build("aok_vqa", split="test")
    assert test[0]["references"] == []
    assert test.answer_list == ["ride", "car"]
    assert readable(test)


def processors(text):
    image = registry.build("processor", {"name": "blip_image_eval"}, image_size=16)
    return Processors(image=image, text=registry.build("processor", {"name": text}))


def test_questions_make_lavis_batches(root):
    root.images("coco/images", VAL)
    row = {"question": "What IS it?", "image": VAL, "dataset": "vqa"}
    file = root.write(
        "q.json",
        [
            {**row, "question_id": 1, "answer": ["net"] * 7 + ["mesh"] * 3},
            {**row, "question_id": 2, "answer": ["yes"] * 10},
        ],
    )
    dataset = root.build("coco_vqa", annotations=file)
    (batch,) = EvalData(dataset, processors("blip_question"), batch_size=4).batches()
    assert batch["image"].shape == (2, 3, 16, 16)
    assert batch["text_input"] == ["what is it?"] * 2
    assert batch["answer"] == ["net", "mesh", "yes"]
    assert batch["weight"].tolist() == pytest.approx([0.7, 0.3, 1.0])
    assert batch["n_answers"].tolist() == [2, 1]
    assert batch["question_id"].tolist() == [1, 2]


def test_datasets_of_questions_are_mixed(root):
    root.images("coco/images", VAL)
    root.images("vg/images", "VG_100K/1.jpg")
    row = {"question_id": 1, "question": "What?"}
    vqa = root.write("q.json", [{**row, "image": VAL, "answer": ["net"] * 5 + ["web"] * 5}])
    vg = root.write("g.json", [{**row, "image": "VG_100K/1.jpg", "answer": "green"}])
    datasets = [root.build("coco_vqa", annotations=vqa), root.build("vg_vqa", annotations=vg)]
    training = TrainData(
        datasets, [None, None], processors("blip_question"), batch_size=2, num_workers=0, seed=0,
        quarantine=Quarantine(),
    )  # fmt: skip
    batch = next(training.batches())
    assert sorted(zip(batch["answer"], batch["weight"].tolist(), strict=True)) == [
        ("green", pytest.approx(0.2)),
        ("net", pytest.approx(0.5)),
        ("web", pytest.approx(0.5)),
    ]
    assert sorted(batch["n_answers"].tolist()) == [1, 2]


# ---- classes


def test_a_pair_with_one_bad_image_is_quarantined(root):
    root.images("nlvr/images", "a.png", "b.png")
    row = {"sentence": "x", "label": "True"}
    rows = [{**row, "images": ["a.png", other]} for other in ("b.png", "c.png")]
    dataset = root.build("nlvr", annotations=root.write("n.json", rows))
    quarantine = Quarantine(max_bad_fraction=1.0)
    data = EvalData(dataset, processors("blip_caption"), batch_size=4, quarantine=quarantine)
    (batch,) = data.batches()
    assert batch["index"] == [0]
    assert quarantine.total == 1


def test_nlvr(root):
    left, right = "dev/dev-850-0-img0.png", "dev/dev-850-0-img1.png"
    root.images("nlvr/images", left, right)
    rows = [
        {"sentence": "The left image shows a dog.", "label": label, "images": [left, right]}
        for label in ("True", "False")
    ]
    for name in ("train", "dev", "test"):
        root.write(f"nlvr/annotations/nlvr_{name}.json", rows)
    splits = load_dataset("nlvr", root=str(root.path))
    assert list(splits) == ["train", "val", "test"]
    dataset = splits["test"]
    assert [row["label"] for row in dataset] == [1, 0]
    assert dataset[0]["image0"].endswith(left)
    assert dataset[0]["image1"].endswith(right)
    assert not {"image", "image0", "image1", "other"} & dataset.annotation(0).keys()
    assert readable(dataset)
    (batch,) = EvalData(dataset, processors("blip_caption"), batch_size=4).batches()
    assert batch["text_input"] == ["the left image shows a dog"] * 2
    assert batch["image0"].shape == batch["image1"].shape == (2, 3, 16, 16)
    assert batch["label"].tolist() == [1, 0]
    training = TrainData(
        [splits["train"]], [None], processors("blip_caption"), batch_size=2, num_workers=0,
        seed=0, quarantine=Quarantine(),
    )  # fmt: skip
    said = {text for batch in training.batches(stop=10) for text in batch["text_input"]}
    assert said == {"the left image shows a dog", "the right image shows a dog"}


def test_snli_ve_of_albef_and_as_published(root):
    root.images("flickr30k/images/flickr30k-images", "2407091303.jpg")
    rows = [
        {"image": "2407091303", "sentence": "People talk.", "label": label}
        for label in ("entailment", "neutral", "contradiction")
    ]
    root.write("snli_ve/annotations/ve_train.json", rows)
    published = "\n".join(
        json.dumps(
            {
                **{"Flickr30K_ID": row["image"], "sentence2": row["sentence"], "pairID": "x"},
                **{"gold_label": row["label"], "sentence1": "Two men talk."},
            }
        )
        for row in rows
    )
    file = root.write("snli_ve_train.jsonl", published)
    for dataset in (root.build("snli_ve"), root.build("snli_ve", annotations=file)):
        assert [row["label"] for row in dataset] == [2, 1, 0]
        assert dataset.class_names[2] == "entailment"
        assert {row["image_id"] for row in dataset} == {"2407091303"}
        assert texts(dataset) == ["People talk."] * 3
        assert readable(dataset)


def test_imagenets_classes_have_wordnets_names(root):
    folders = ("n01440764", "n02012849", "n03126707")  # a tench and two cranes
    root.images("imagenet/val", *(f"{folder}/a.JPEG" for folder in folders))
    dataset = root.build("imagenet")
    assert [row["label"] for row in dataset] == [0, 1, 2]
    assert dataset.class_names[0] == "tench"
    assert all("crane" in name for name in dataset.class_names[1:])
    assert readable(dataset)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "n01440764 tench, Tinca tinca\nbirds crane\n"),
        ("names.json", {"n01440764": "tench", "birds": "crane"}),
        ("list.json", ["crane", "tench"]),
    ],
)
def test_folders_of_classes_with_names_from_a_file(root, name, content):
    root.images("mine", "birds/1.png", "birds/more/2.png", "n01440764/3.png")
    file = root.write(name, content)
    path = str(root.path / "mine")
    dataset = registry.build("dataset", {"name": "class_folders", "path": path, "classes": file})
    assert dataset.class_names == ["crane", "tench"]
    assert [(row["text_input"], row["label"]) for row in dataset] == [
        *[("crane", 0)] * 2,
        ("tench", 1),
    ]
    plain = registry.build("dataset", {"name": "class_folders", "path": path})
    assert plain.class_names == ["birds", "n01440764"]


# ---- videos


def test_msrvtt_gives_frames_at_equal_distances(root):
    root.images("msrvtt/frames", *(f"video7010/{n:05d}.jpg" for n in range(1, 11)))
    root.images("msrvtt/frames", *(f"video7011/{n:05d}.jpg" for n in range(1, 3)))
    rows = [
        {"clip_name": "video7010", "caption": "a man runs", "retrieval_key": "ret0"},
        {"clip_name": "video7011", "caption": "a cat sleeps", "retrieval_key": "ret1"},
    ]
    root.write("msrvtt/annotations/msrvtt_test.jsonl", "\n".join(map(json.dumps, rows)))
    lavis = [{"video": f"{row['clip_name']}.mp4", "caption": row["caption"]} for row in rows]
    for dataset in (
        root.build("msrvtt_retrieval", num_frames=4),
        root.build("msrvtt_retrieval", annotations=root.write("l.json", lavis), num_frames=4),
    ):
        first, second = ([image[-9:-4] for image in row["image"]] for row in dataset)
        assert first == ["00001", "00003", "00006", "00008"]
        assert second == ["00001", "00001", "00002", "00002"]
        assert "image" not in dataset.annotation(0)
        assert [dataset.annotation(i)["image_id"] for i in range(2)] == ["video7010", "video7011"]
        assert readable(dataset)
    (batch,) = EvalData(dataset, processors("blip_caption"), batch_size=2).batches()
    assert batch["image"].shape == (2, 4, 3, 16, 16)
    with pytest.raises(ConfigError, match="num_frames: 0"):
        root.build("msrvtt_retrieval", num_frames=0)
    (root.path / "msrvtt/frames/video7011").rename(root.path / "gone")
    with pytest.raises(DataError, match="missing folder of frames"):
        dataset[1]


# ---- what goes wrong

IMAGES = {
    "coco_vqa": "coco/images", "nlvr": "nlvr/images", "nocaps": "nocaps/images",
    "snli_ve": "flickr30k/images/flickr30k-images", "coco_caption": "coco/images",
    "msrvtt_retrieval": "msrvtt/frames", "imagenet": "imagenet/val",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_a_missing_folder_of_images_says_what_to_get(root, name):
    with pytest.raises(DataError) as caught:
        root.build(name)
    assert f"{IMAGES[name]}: no such folder" in str(caught.value)
    assert f"`lavis-lite data info {name}` says what to get" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("coco_vqa", [{"sentence": "x"}], r"a row without 'question'; it has sentence"),
        ("coco_vqa", ["red", "blue"], r"no questions in them"),
        ("coco_vqa", {"annotations": [{"caption": "x"}]}, r"a row without 'question_id'"),
        ("coco_vqa", [1, 2], r"neither questions nor answers: a JSON list .*\[1, 2\]"),
        ("coco_vqa", [{"question": "x", "question_id": 5}], r"question 5 has no answer to train"),
        ("coco_vqa", "nothing", r"not JSON"),
        ("ok_vqa", [{"question": "x", "question_id": 5, "answer": ["y"]}], "neither `image` nor"),
        ("nlvr", [{"sentence": "x", "label": "yes", "images": ["a", "b"]}], r"label 'yes'; known"),
        ("nlvr", [{"sentence": "x", "label": "True", "images": ["a"]}], r"about two images"),
        ("nlvr", {"a": 1}, r"a JSON dict, where a list is expected"),
        ("snli_ve", [{"image": "1", "sentence": "x", "label": "-"}], r"label '-'.* Known: contra"),
        ("snli_ve", [{"image": "1", "text": "x", "label": "neutral"}], r"without 'sentence'"),
        ("nocaps", [{"image": "a.jpg"}], r"a row without 'img_id'; it has image"),
        ("coco_caption", [{"image": "a.jpg", "text_": "x"}], r"no column of the texts"),
        ("coco_caption", [{"image": "a.jpg", "caption": "x"}], r"none of the first 1 images"),
        ("coco_caption", [], r"there are no rows in it"),
    ],
)
def test_another_format_is_refused_with_what_was_seen(root, name, content, message):
    folder = root.path / "pictures"
    folder.mkdir(parents=True)
    file = root.write("annotations.json", content)
    with pytest.raises(DataError, match=message) as caught:
        root.build(name, images=str(folder), annotations=file)
    assert f"`lavis-lite data info {name}`" in str(caught.value)


def test_a_missing_annotation_file_is_named_with_the_nearest(root):
    folder = root.path / "pictures"
    folder.mkdir(parents=True)
    root.write("vqa_train.json", [])
    with pytest.raises(DataError, match=r"vqa_trian\.json: no such file .*'vqa_train\.json'"):
        root.build("coco_vqa", images=str(folder), annotations=str(root.path / "vqa_trian.json"))
    with pytest.raises(DataError, match=r"snli_ve, split train: no annotations at .*ve_train"):
        root.build("snli_ve", images=str(folder))
    with pytest.raises(DataError, match=r"cc3m: .*missing.*\n.*data info cc3m"):
        root.build("cc3m")


@pytest.mark.parametrize(
    ("content", "message"),
    [(["one"], "1 names for 2 folders"), ({"birds": "x"}, "no name for the class 'fish'")],
)
def test_classes_without_names_are_refused(root, content, message):
    root.images("mine", "birds/1.png", "fish/3.png")
    with pytest.raises(DataError, match=message):
        registry.build(
            "dataset",
            {
                **{"name": "class_folders", "path": str(root.path / "mine")},
                "classes": root.write("c.json", content),
            },
        )
    with pytest.raises(DataError, match=r"mien: no such folder\. Did you mean 'mine'"):
        registry.build("dataset", {"name": "class_folders", "path": str(root.path / "mien")})
    (root.path / "empty").mkdir()
    with pytest.raises(DataError, match="no folders in it; each class has its own"):
        registry.build("dataset", {"name": "class_folders", "path": str(root.path / "empty")})


def test_flickr8k_is_read_as_published_and_as_json_lines(root):
    root.images("flickr8k/Flicker8k_Dataset", "1.jpg", "2.jpg")
    captions = "".join(f"{n}.jpg#{i}\tcaption {n}{i} .\n" for n in (1, 2) for i in range(2))
    root.write("flickr8k/Flickr8k_text/Flickr8k.token.txt", captions)
    root.write("flickr8k/Flickr8k_text/Flickr_8k.trainImages.txt", "2.jpg\n")
    published = root.build("flickr8k", split="train")
    assert texts(published) == ["caption 20 .", "caption 21 ."]
    readable(published)

    rows = [
        {"image": f"{n}.jpg", "captions": [f"{n}0", f"{n}1"], "split": s}
        for n, s in [(1, "dev"), (2, "train")]
    ]
    lines = root.write("captions.jsonl", "\n".join(map(json.dumps, rows)))
    assert texts(root.build("flickr8k", split="dev", annotations=lines)) == ["10", "11"]


@pytest.mark.parametrize("published", [True, False])
def test_judgements_come_with_the_captions_that_were_written_for_the_image(root, published):
    root.images("flickr8k/Flicker8k_Dataset", "1.jpg", "2.jpg")
    own = {"1.jpg": ["a dog", "the dog"], "2.jpg": ["a cat", "the cat"]}
    if published:
        token = "".join(f"{n}#{i}\t{t}\n" for n, ts in own.items() for i, t in enumerate(ts))
        root.write("flickr8k/Flickr8k_text/Flickr8k.token.txt", token)
        expert = "1.jpg\t2.jpg#1\t1\t2\t1\n1.jpg\t1.jpg#0\t4\t4\t4\n"
        root.write("flickr8k/Flickr8k_text/ExpertAnnotations.txt", expert)
        root.write("flickr8k/Flickr8k_text/CrowdFlowerAnnotations.txt", "2.jpg\t2.jpg#0\t1\t3\t0\n")
        files = None
    else:
        rows = [{"image": image, "captions": texts} for image, texts in own.items()]
        shared = {"image": "1.jpg", "kind": "expert"}
        rows += [
            {**shared, "caption": "the cat", "own": False, "scores": [1, 2, 1]},
            {**shared, "caption": "a dog", "own": True, "scores": [4, 4, 4]},
            {"image": "2.jpg", "kind": "crowd", "caption": "a cat", "own": True, "yes": 3, "no": 0},
        ]
        files = root.write("all.jsonl", "\n".join(map(json.dumps, rows)))
    expert = root.build("flickr8k_judgements", split="expert", annotations=files)
    found = [expert.annotation(n) for n in range(len(expert))]
    assert [row["text_input"] for row in found] == ["the cat", "a dog"]
    assert [row["scores"] for row in found] == [[1, 2, 1], [4, 4, 4]]
    assert [row["own"] for row in found] == [False, True]
    assert found[0]["references"] == own["1.jpg"]
    crowd = root.build("flickr8k_judgements", split="crowd", annotations=files)
    assert (crowd.annotation(0)["yes"], crowd.annotation(0)["no"]) == (3, 0)
    with pytest.raises(ConfigError, match="Did you mean 'crowd'"):
        root.build("flickr8k_judgements", split="crowds", annotations=files)
