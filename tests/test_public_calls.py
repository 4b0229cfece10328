"""The functions of ``lavis_lite`` itself, called wrongly: an error that says what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lavis_lite
from lavis_lite import errors

OURS = tuple(x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception))
TINY = {"name": "blip_caption", "model_type": "tiny"}
TRAIN = {"vis_processor": {"trian": {"name": "blip_image_train"}}}

# The function -> calls that it refuses, each with a part of the message.
WRONG: dict[str, list[tuple[dict[str, Any], str]]] = {
    "load_model": [
        ({"name": 3}, "name: str is expected, not int 3"),
        ({}, "which model?"),
        ({"name": ["blip_caption"]}, "name: str is expected, not list"),
        ({"name": "blip_captoin"}, "Did you mean 'blip_caption'"),
        ({"name": "blip_caption", "model_type": "tinny"}, "no type 'tinny'"),
        ({**TINY, "device": "gpu"}, "device: 'gpu'.* Known: cpu, cuda"),
        ({**TINY, "device": 3.5}, r"device: 3\.5"),
        ({**TINY, "is_eval": "yes"}, "is_eval: bool is expected, not str 'yes'"),
        ({**TINY, "dtype": "bf61"}, "Did you mean 'bf16'"),
        ({**TINY, "max_length": "40"}, "max_length: int is expected, not str '40'"),
        ({**TINY, "image_size": "big"}, "image_size: int is expected, not str 'big'"),
        ({**TINY, "vision": 3}, "vision: a mapping is expected, not int 3"),
        ({**TINY, "losses": ["lm"]}, "losses: a mapping is expected, not list"),
        ({**TINY, "losses": {"lm": "lm"}}, "str 'lm'; a mapping with a `name`"),
        ({**TINY, "max_lenght": 40}, "Did you mean 'max_length'"),
        ({**TINY, "checkpoint": 3}, "checkpoint: str is expected, not int 3"),
        ({**TINY, "checkpoint": Path("nowhere")}, "nowhere"),
    ],
    "create_model": [
        ({**TINY, "pretrained": "yes"}, "pretrained: bool is expected, not str 'yes'"),
        ({**TINY, "pretrained": True}, "no released weights for type 'tiny'"),
        ({**TINY, "prompt": 3}, "prompt: str is expected, not int 3"),
    ],
    "load_model_and_preprocess": [
        ({"name": 3}, "name: str is expected, not int 3"),
        ({**TINY, "device": "gpu"}, "device: 'gpu'"),
        ({**TINY, "max_length": "40"}, "max_length: int is expected, not str '40'"),
    ],
    "load_preprocess": [
        ({}, "missing a required argument: 'config'"),
        ({"config": 3}, "config: a mapping is expected, not int 3"),
        ({"confg": {}}, "no argument 'confg'. Did you mean 'config'"),
        ({"config": {"vis_procesor": {}}}, "Did you mean 'vis_processor'"),
        ({"config": {"vis_processor": "blip_image_eval"}}, "a mapping with `train` and `eval`"),
        ({"config": {"vis_processor": {"train": "a"}}}, "a mapping with a `name`, not 'a'"),
        ({"config": TRAIN}, "unknown key 'trian'. Did you mean 'train'"),
    ],
    "load_processor": [
        ({"name": 3}, "name: str is expected, not int 3"),
        ({"name": "blip_image_evl"}, "Did you mean 'blip_image_eval'"),
        (
            {"name": "blip_image_eval", "image_size": "a"},
            "image_size: int is expected, not str 'a'",
        ),
        ({"name": "blip_image_eval", "image_size": -4}, "image_size: -4"),
        ({"name": "blip_image_eval", "image_sise": 4}, "Did you mean 'image_size'"),
        ({"name": "blip_image_eval", "mean": 3}, "mean: a list is expected, not int 3"),
        ({"name": "blip_image_eval", "mean": [1.0]}, "three numbers each"),
        ({"name": "blip_image_eval", "cfg": 3}, "cfg: a mapping is expected, not int 3"),
        ({"name": "blip_caption", "max_words": "9"}, "max_words: int is expected, not str '9'"),
    ],
    "load_dataset": [
        ({"name": 3}, "name: str is expected, not int 3"),
        ({"name": "scense"}, "Did you mean 'scenes'"),
        ({"name": "scenes", "split": "tst"}, "Did you mean 'test'"),
        ({"name": "scenes", "size": "3"}, "size: int is expected, not str '3'"),
        ({"name": "scenes", "cfg_path": "nowhere.yaml"}, "cfg_path: nowhere.yaml"),
        ({"name": "scenes", "cfg_path": 3}, "cfg_path: str is expected, not int 3"),
        ({"name": "scenes", "vis_path": 3}, "vis_path: str is expected, not int 3"),
        ({"name": "scenes", "data_type": "videos"}, "there are only 'images'"),
        ({"name": "json", "path": "nowhere.json"}, "nowhere.json"),
    ],
    "pipeline": [
        ({}, "task: which one"),
        ({"task": 3}, "task: no 3"),
        ({"task": "image-to-txt"}, "Did you mean 'image-to-text'"),
        ({"task": "object-detection"}, "a task of transformers that no model here does"),
        ({"task": "image-to-text", "model": 3}, r"model: an int \(3\)"),
        ({"task": "image-to-text", "model": "blip_captoin"}, "Did you mean 'blip_caption'"),
        ({"task": "image-to-text", "model": "clip.tiny"}, "cannot caption: it lacks generate"),
        ({"task": "image-to-text", "device": 3.5}, r"device: a float \(3\.5\)"),
        ({"task": "image-to-text", "dtype": "bf61", "model": "blip_caption.tiny"}, "'bf16'"),
        ({"task": "image-to-text", "batchsize": 4}, "Did you mean 'batch_size'"),
        ({"task": "image-to-text", "tokenizer": "other"}, "comes with the model"),
    ],
    "list_models": [({"pattern": 3}, "pattern: 3; a text with wildcards")],
}
# What of the public names is no function to be called.
NO_FUNCTIONS = {"dataset_zoo", "model_zoo", "registry"}


def test_every_public_function_has_rows() -> None:
    assert {*lavis_lite.__all__} == {*WRONG} | NO_FUNCTIONS


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [(name, given, says) for name, rows in WRONG.items() for given, says in rows],
)
def test_a_wrong_call_is_told_what_is_taken(
    function: str, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(OURS, match=says):
        getattr(lavis_lite, function)(**arguments)


def test_a_yaml_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    for content, says in (("[1, 2]", "a mapping of the dataset's"), ("a: [", "cfg_path")):
        (path := tmp_path / "a.yaml").write_text(content)
        with pytest.raises(errors.DataError, match=says):
            lavis_lite.load_dataset("scenes", cfg_path=path)


def test_numbers_of_numpy_paths_and_devices_are_taken() -> None:
    model = lavis_lite.load_model(
        **TINY, device=torch.device("cpu"), max_length=np.int64(12), image_size=(64, 64)
    )
    assert model.max_length == 12
    processor = lavis_lite.load_processor("blip_image_eval", image_size=np.int64(8))
    assert processor(Image.new("RGB", (9, 9))).shape == (3, 8, 8)


@pytest.mark.parametrize("name", ["blip_image_eval", "blip_image_train", "clip_image_eval"])
def test_an_image_processor_takes_one_picture_in_any_form(name: str, tmp_path: Path) -> None:
    processor = lavis_lite.load_processor(name, image_size=8)
    Image.new("RGB", (9, 9), "red").save(path := tmp_path / "a.png")
    pixels = np.array(Image.open(path))
    for form in (path, str(path), path.read_bytes(), pixels, torch.from_numpy(pixels)):
        formal = processor(Image.open(path), np.random.default_rng(0))
        assert torch.equal(processor(form, np.random.default_rng(0)), formal)
    for wrong in (3, None, [path], np.zeros((2, 9, 9, 3), np.uint8), np.zeros((9, 9, 3))):
        with pytest.raises(errors.ConfigError, match="one picture is expected"):
            processor(wrong)
    with pytest.raises(errors.DataError, match="missing file"):
        processor("nowhere.png")


@pytest.mark.parametrize("name", ["blip_caption", "blip_question", "clip_caption"])
def test_a_text_processor_takes_one_text(name: str) -> None:
    processor = lavis_lite.load_processor(name)
    for wrong in (3, None, ["a dog"], b"a dog"):
        with pytest.raises(errors.ConfigError, match="one text is expected"):
            processor(wrong)
