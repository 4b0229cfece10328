"""Images of a wrong shape or kind: taken where the meaning is clear, else told what to give."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavis_lite import create_model, load_model, registry
from lavis_lite.errors import ConfigError, DataError, NotFinite
from lavis_lite.losses import matching
from lavis_lite.modules import vision

IMAGE = torch.zeros(3, 64, 64)


@pytest.fixture(scope="module")
def captioner() -> Any:
    return load_model("blip_caption", "scenes", is_eval=True)


@pytest.fixture(scope="module")
def answerer() -> Any:
    return load_model("blip_vqa", "scenes", is_eval=True)


def test_one_image_and_a_list_of_images_are_batches(captioner: Any) -> None:
    (one,) = captioner.generate({"image": IMAGE[None]})
    assert captioner.generate({"image": IMAGE}) == [one]
    assert captioner.generate({"image": [IMAGE, IMAGE]}) == [one, one]


WRONG = {
    "one channel": ({"image": IMAGE[None, :1]}, r"\(1, 1, 64, 64\) .*; \(B, 3, H, W\) is expected"),
    "four channels": ({"image": torch.zeros(1, 4, 64, 64)}, r"\(B, 3, H, W\) is expected"),
    "whole numbers": ({"image": IMAGE[None].long()}, "of int64; .*as the image processor makes"),
    "a path of nothing": ({"image": ["a.png"]}, r"image\[0\]: missing file: a.png"),
    "a number": ({"image": 3}, r"an int \(3\); .*vis_processors"),
    "sizes": ({"image": [IMAGE, IMAGE[:, :32]]}, "images of different sizes"),
    "none": ({"image": IMAGE[None][:0]}, "an empty batch"),
    "another name": ({"img": IMAGE[None]}, "no 'image'. Did you mean 'img'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_batch_of_images_is_told_what_to_give(case: str, captioner: Any) -> None:
    samples, message = WRONG[case]
    with pytest.raises((ConfigError, DataError), match=message):
        captioner.generate(samples)


@pytest.mark.parametrize("case", WRONG)
def test_so_it_is_for_answers_and_features(case: str, answerer: Any) -> None:
    samples, message = WRONG[case]
    asked = {**samples, "text_input": ["what colour?"]}
    with pytest.raises((ConfigError, DataError), match=message):
        answerer.predict_answers(asked, inference_method="generate")


@pytest.mark.parametrize("how", [{}, {"num_beams": 1}, {"use_nucleus_sampling": True}])
def test_pixels_that_are_no_numbers_are_named_by_their_rows(how: dict, captioner: Any) -> None:
    images = torch.stack([IMAGE, IMAGE * float("nan"), IMAGE])
    with pytest.raises(NotFinite, match="row 1 of the batch") as error:
        captioner.generate({"image": images}, **how)
    assert error.value.rows == [1]


def test_the_error_of_a_worker_arrives_whole() -> None:
    error = pickle.loads(pickle.dumps(NotFinite("logits", [2, 1])))
    assert error.rows == [1, 2]
    assert "rows 1, 2 of the batch" in str(error)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"answer_list": "red"}, r"a list of answers is expected: \['red'\]"),
        ({"answer_list": []}, "give one, or use `generate`"),
        ({"answer_list": [1, 2]}, r"answer_list\[0\]: an int \(1\); .* such as '1'"),
        ({"answer_list": ["red", None]}, r"answer_list\[1\]: None; a text is expected"),
        ({"answer_list": ["red", " "]}, "' ' is no answer"),
        ({"answer_list": ["red"], "num_ans_candidates": 0}, "num_ans_candidates: 0; at least 1"),
        ({"answer_list": ["red"], "num_ans_candidates": -1}, "num_ans_candidates: -1"),
    ],
)
def test_what_cannot_be_ranked_is_refused(how: dict, message: str, answerer: Any) -> None:
    samples = {"image": IMAGE[None], "text_input": ["what colour?"]}
    with pytest.raises(ConfigError, match=message):
        answerer.predict_answers(samples, inference_method="rank", **how)


@pytest.mark.parametrize("name", ["blip_caption", "clip"])
def test_models_pickle_and_copy(name: str) -> None:
    model = load_model(name, "scenes", is_eval=True)
    torch.save(model, io.BytesIO())
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other.visual_encoder) is type(model.visual_encoder)
        assert torch.equal(other.encode_image(IMAGE[None]), model.encode_image(IMAGE[None]))


def test_an_image_size_that_patches_do_not_divide_says_what_is_cut(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = {"name": "timm/vit_tiny_patch16_224", "depth": 1, "embed_dim": 12, "num_heads": 2}
    with caplog.at_level(logging.WARNING):
        registry.build("vision_encoder", spec, image_size=64)
        assert "cut" not in caplog.text
        registry.build("vision_encoder", spec, image_size=70)
    assert re.search(r"do not divide image_size 70 x 70: the last 6 x 6 pixels", caplog.text)
    assert "64 x 64 divides" in caplog.text


def test_an_image_that_patches_of_any_size_do_not_divide_is_refused() -> None:
    spec = {"name": "timm/vit_tiny_patch16_224", "depth": 1, "embed_dim": 12, "num_heads": 2}
    encoder = registry.build("vision_encoder", {**spec, "dynamic_img_size": True}, image_size=64)
    assert vision.encode(encoder, torch.zeros(1, 3, 32, 48)).shape == (1, 7, 12)
    with pytest.raises(ConfigError, match="32 x 50 pixels; patches of 16 x 16 do not divide"):
        vision.encode(encoder, torch.zeros(1, 3, 32, 50))


def test_a_batch_of_one_pair_says_once_that_it_has_no_negatives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    matching.warn_of_one.cache_clear()
    model = create_model("blip_pretrain", "tiny")
    samples = {"image": IMAGE[None].repeat(1, 1, 1, 1), "text_input": ["a dog"], "image_id": [1]}
    samples["image"] = torch.zeros(1, 3, model.image_size, model.image_size)
    samples["image_id"] = torch.tensor([1])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert model(samples).loss_itm.isfinite()
    assert caplog.text.count("a batch of one pair has no negatives") == 1


def test_answers_that_are_numbers_weighted_or_empty(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = {
        "int": (3, ["3"], [1.0]),
        "weighed": ({"red": 0.9, "blue": 0.1}, ["red", "blue"], [0.9, 0.1]),
        "empty": (["", "red"], ["red"], [1.0]),
        "zero": (0, ["0"], [1.0]),
    }
    import json

    for name, (answer, texts, weights) in rows.items():
        row = {"question": "what?", "question_id": 1, "image": "a.png", "answer": answer}
        (tmp_path / f"{name}.json").write_text(json.dumps([row]))
        spec = {"name": "coco_vqa", "annotations": str(tmp_path / f"{name}.json")}
        dataset = registry.build("dataset", {**spec, "images": str(tmp_path), "split": "train"})
        assert (dataset[0]["answers"], dataset[0]["weights"]) == (texts, weights), name
