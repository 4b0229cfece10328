"""A data folder with a handful of made samples of every published dataset, in its format."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
TRAIN = [f"train2014/COCO_train2014_{n:012d}.jpg" for n in range(1, 7)]
VAL = [f"val2014/COCO_val2014_{n:012d}.jpg" for n in range(1, 7)]
TEST = [f"test2015/COCO_test2015_{n:012d}.jpg" for n in range(1, 7)]
FLICKR = [f"{n:010d}.jpg" for n in range(1, 7)]


def write_published(data: Path) -> Path:
    """Fill the folder ``data`` as the datasets' cards say; returns it."""
    _coco(data)
    _flickr(data)
    _questions(data)
    _nlvr(data)
    _web(data)
    _videos_and_classes(data)
    return data


def _coco(data: Path) -> None:
    for names in (TRAIN, VAL, TEST):
        _images(data / "coco/images", names)
    _json(
        data / "coco/annotations/coco_karpathy_train.json",
        [
            {"image": image, "caption": f"a {colour} wall", "image_id": f"coco_{number}"}
            for number, (image, colour) in enumerate(zip(TRAIN, COLOURS, strict=True))
        ],
    )
    for split in ("val", "test"):
        _json(data / f"coco/annotations/coco_karpathy_{split}.json", _several(VAL))
    pictures = [{"image": f"val/{n}.jpg", "img_id": n} for n in range(6)]
    _images(data / "nocaps/images", [row["image"] for row in pictures])
    _json(data / "nocaps/annotations/nocaps_val.json", pictures)
    _json(
        data / "nocaps/annotations/nocaps_val_4500_captions.json",
        {
            "images": [
                {"id": n, "file_name": f"{n}.jpg", "domain": ("in-domain", "out-domain")[n % 2]}
                for n in range(6)
            ],
            "annotations": [
                {"id": n, "image_id": n % 6, "caption": f"a {COLOURS[n % 6]} wall"}
                for n in range(12)
            ],
        },
    )


def _flickr(data: Path) -> None:
    folder = "flickr30k-images"
    _images(data / f"flickr30k/images/{folder}", FLICKR)
    images = [f"{folder}/{name}" for name in FLICKR]
    rows = [
        {"image": image, "caption": f"a {colour} wall", "image_id": number}
        for number, (image, colour) in enumerate(zip(images, COLOURS, strict=True))
    ]
    _json(data / "flickr30k/annotations/flickr30k_train.json", rows)
    for split in ("val", "test"):
        _json(data / f"flickr30k/annotations/flickr30k_{split}.json", _several(images))
    labels = ("entailment", "neutral", "contradiction")
    entailment = [
        {"image": name.removesuffix(".jpg"), "sentence": "A wall.", "label": labels[n % 3]}
        for n, name in enumerate(FLICKR)
    ]
    for split in ("train", "dev", "test"):
        _json(data / f"snli_ve/annotations/ve_{split}.json", entailment)


def _questions(data: Path) -> None:
    coco, answers = data / "coco/annotations", ["red", "blue", "2", "yes"]
    for split, images in (("train", TRAIN), ("val", VAL)):
        _json(coco / f"vqa_{split}.json", _asked(images, answer=["red"] * 8 + ["blue", "2"]))
    _json(coco / "vqa_val_eval.json", _asked(VAL))
    _json(coco / "vqa_test.json", _asked(TEST))
    _json(coco / "answer_list.json", answers)
    official = {"annotations": [_answered(number) for number in range(6)]}
    _json(coco / "v2_mscoco_val2014_annotations.json", official)
    _images(data / "vg/images", ["VG_100K/1.jpg", "VG_100K/2.jpg"])
    genome = ["VG_100K/1.jpg", "VG_100K/2.jpg"]
    _json(data / "vg/annotations/vg_qa.json", _asked(genome, answer="red"))
    _json(
        data / "vg/annotations/vg_caption.json",
        [{"image": image, "caption": "a door", "image_id": f"vg_{image}"} for image in genome],
    )
    okvqa = data / "okvqa/annotations"
    _json(okvqa / "okvqa_train.json", _asked(TRAIN, answer=["red"] * 10))
    _json(okvqa / "okvqa_val_eval.json", _asked(VAL))
    _json(okvqa / "okvqa_answer_list_train.json", answers)
    _json(okvqa / "mscoco_val2014_annotations.json", official)
    aokvqa = data / "aokvqa/annotations"
    direct = {"direct_answers": ["red"] * 10, "choices": answers, "correct_choice_idx": 0}
    _json(aokvqa / "aokvqa_v1p0_train.json", _asked(TRAIN, **direct))
    _json(aokvqa / "aokvqa_v1p0_val.json", _asked(VAL, **direct))
    _json(aokvqa / "aokvqa_v1p0_test.json", _asked(VAL, choices=answers))
    _json(aokvqa / "specialized_vocab_train.json", answers)


def _nlvr(data: Path) -> None:
    for split in ("train", "dev", "test"):
        images = [f"{split}/{split}-{n}-0-img{side}.png" for n in range(6) for side in (0, 1)]
        _images(data / "nlvr/images", images)
        rows = [
            {
                "sentence": "The left wall is red.",
                "label": ("True", "False")[n % 2],
                "images": images[2 * n : 2 * n + 2],
            }
            for n in range(6)
        ]
        _json(data / f"nlvr/annotations/nlvr_{split}.json", rows)


def _web(data: Path) -> None:
    for name in ("cc3m", "cc12m", "sbu", "laion"):
        (data / name).mkdir(parents=True)
        with tarfile.open(data / name / "00000.tar", "w") as tar:
            for number, colour in enumerate(COLOURS):
                picture = io.BytesIO()
                Image.new("RGB", (32, 24), colour).save(picture, "JPEG")
                for suffix, content in (
                    ("jpg", picture.getvalue()),
                    ("txt", f"{colour} on the web".encode()),
                ):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _videos_and_classes(data: Path) -> None:
    rows = [{"clip_name": f"video{n}", "caption": f"a {COLOURS[n]} wall moves"} for n in range(6)]
    for row in rows:
        _images(data / "msrvtt/frames", [f"{row['clip_name']}/{n:05d}.jpg" for n in range(3)])
    lines = "\n".join(map(json.dumps, rows))
    (data / "msrvtt/annotations").mkdir(parents=True)
    (data / "msrvtt/annotations/msrvtt_test.jsonl").write_text(lines)
    folders = ("n01440764", "n01443537", "n01484850")
    _images(data / "imagenet/val", [f"{folder}/{n}.JPEG" for folder in folders for n in range(2)])


def _several(images: list[str]) -> list[dict[str, Any]]:
    return [
        {"image": image, "caption": [f"a {colour} wall", f"it is {colour}"]}
        for image, colour in zip(images, COLOURS, strict=True)
    ]


def _asked(images: list[str], **more: Any) -> list[dict[str, Any]]:
    return [
        {"question_id": number, "question": "What color is it?", "image": image, **more}
        for number, image in enumerate(images)
    ]


def _answered(number: int) -> dict[str, Any]:
    answers = [{"answer": "red", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    types = {"question_type": "what color", "answer_type": "other"}
    return {"question_id": number, "image_id": number, "answers": answers, **types}


def _images(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), COLOURS[number % len(COLOURS)]).save(file)


def _json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
