"""Captions from exported ONNX files: the live model's own, without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from lavis_lite import create_model
from lavis_lite.errors import CheckpointError, ConfigError, DataError, NotFinite
from lavis_lite.models.export.captioner import OnnxCaptioner
from lavis_lite.models.export.onnx_files import Session
from lavis_lite.models.export.write import export_model
from lavis_lite.models.zoo import processors_of

SMALL = {"vision": {"depth": 1}, "text": {"depth": 2}}


@pytest.fixture(scope="module")
def captioner() -> Any:
    """A captioner with random weights, large enough that pictures get texts of their own."""
    torch.manual_seed(1)
    model = create_model("blip_caption", "tiny", **SMALL).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "crossattention" in name and weight.ndim == 2:
                weight.mul_(20)
        model.text_decoder.cls.predictions.bias[model.tokenizer.sep_id] = 0.7
    return model


@pytest.fixture(scope="module")
def folder(captioner: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("captioner") / "onnx"
    export_model(captioner, target)
    return target


@pytest.fixture(scope="module")
def exported(folder: Path) -> OnnxCaptioner:
    return OnnxCaptioner(folder, threads=1)


def pictures(count: int) -> list[Image.Image]:
    numbers = numpy.random.default_rng(3).integers(0, 256, (count, 40, 50, 3), dtype=numpy.uint8)
    return [Image.fromarray(each) for each in numbers]


def live(model: nn.Module, images: list[Image.Image], **lengths: int) -> list[str]:
    process = processors_of(model.card, 64)[0]["eval"]  # type: ignore[arg-type]
    pixels = torch.stack([process(image) for image in images])
    return model.generate({"image": pixels}, num_beams=1, **lengths)  # type: ignore[operator]


def test_the_pictures_get_different_texts_of_different_lengths(captioner: Any) -> None:
    texts = live(captioner, pictures(7), min_length=0)
    assert len(set(texts)) > 2
    assert len({len(text.split()) for text in texts}) > 1


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("lengths", [{}, {"max_length": 9, "min_length": 0}, {"min_length": 25}])
def test_captions_are_those_of_greedy_search(
    count: int, lengths: dict[str, int], captioner: Any, exported: OnnxCaptioner
) -> None:
    assert exported(pictures(count), **lengths) == live(captioner, pictures(count), **lengths)


def test_a_caption_does_not_depend_on_the_batch(exported: OnnxCaptioner) -> None:
    images = pictures(4)
    assert exported(images) == [text for image in images for text in exported(image)]


def test_paths_and_files_bytes_and_prepared_arrays_are_taken(
    exported: OnnxCaptioner, captioner: Any, tmp_path: Path
) -> None:
    (image,) = pictures(1)
    path = tmp_path / "one.png"
    image.save(path)
    process = processors_of(captioner.card, 64)[0]["eval"]
    array = process(image)[None].numpy()
    texts = [exported(given) for given in (image, path, str(path), [path.read_bytes()], array)]
    assert texts == texts[:1] * 5
    assert exported([]) == []


def test_ids_have_the_prompt_and_no_end(captioner: Any, exported: OnnxCaptioner) -> None:
    rows = exported.generate_ids(pictures(7), max_length=12, min_length=0)
    prompt = captioner.prompt_ids()
    assert all(row[: len(prompt)] == prompt for row in rows)
    assert all(captioner.tokenizer.sep_id not in row for row in rows)
    assert any(len(row) < 12 for row in rows)


def test_captions_need_no_torch(folder: Path, captioner: Any, tmp_path: Path) -> None:
    images = pictures(3)
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    code = (
        "import json, sys; sys.modules['torch'] = None\n"
        "from lavis_lite.models.export.captioner import OnnxCaptioner\n"
        "captioner, *paths = sys.argv[1:]\n"
        "print(json.dumps(OnnxCaptioner(captioner, threads=1)(paths)))"
    )
    command = [sys.executable, "-c", code, folder, *sorted(tmp_path.glob("*.png"))]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == live(captioner, images)


@pytest.mark.parametrize("longest", [2, 513])
def test_lengths_that_the_decoder_lacks_are_refused(longest: int, exported: OnnxCaptioner) -> None:
    with pytest.raises(ConfigError, match=f"max_length: {longest}; from 5"):
        exported(pictures(1), max_length=longest)


def test_what_is_no_picture_is_refused(exported: OnnxCaptioner, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(2, 64, 64, 3\); \(B, 3, 64, 64\) is expected"):
        exported(numpy.zeros((2, 64, 64, 3), numpy.float32))
    with pytest.raises(DataError, match="missing file"):
        exported(tmp_path / "missing.png")


def test_images_that_are_no_numbers_are_an_error(exported: OnnxCaptioner) -> None:
    array = numpy.zeros((2, 3, 64, 64), numpy.float32)
    array[1] = numpy.nan
    with pytest.raises(NotFinite, match="row 1 of the batch"):
        exported(array)


def test_a_folder_that_holds_no_captioner_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lavis-lite export MODEL"):
        OnnxCaptioner(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "export.json").read_text())
    changed = {
        "captions need image, caption_context": {**content, "captions": None},
        "in the format 'torch'": {**content, "format": "torch"},
        "reads up to 1; update it": {**content, "lavis_lite": {"format": 2}},
        "is damaged": {**content, "parts": {"image": {}}},
        "has no tokenizer.json": {**content, "tokenizer": {**content["tokenizer"], "file": None}},
    }
    for words, now in changed.items():
        (copy / "export.json").write_text(json.dumps(now))
        with pytest.raises((ConfigError, CheckpointError), match=words):
            OnnxCaptioner(copy)


def test_without_a_recipe_only_prepared_arrays_are_taken(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**content, "preprocessing": None}))
    captioner = OnnxCaptioner(copy)
    assert len(captioner(numpy.zeros((1, 3, 64, 64), numpy.float32))) == 1
    with pytest.raises(ConfigError, match="tells no recipe"):
        captioner(pictures(1))


def test_without_onnxruntime_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'lavis_lite\[export\]'"):
        OnnxCaptioner(folder)


def test_weights_in_8_bits_take_less_room_and_write_nearly_the_same(
    captioner: Any, folder: Path, tmp_path: Path
) -> None:
    small_folder = tmp_path / "int8"
    small = export_model(captioner, small_folder, int8=True)
    whole = {path.name: path.stat().st_size for path in folder.glob("*.onnx")}
    now = {path.name: path.stat().st_size for path in small_folder.glob("*.onnx")}
    assert now.keys() == whole.keys()
    assert all(now[name] < 0.9 * size for name, size in whole.items())
    assert small.int8
    assert all(part.difference <= 1e-4 for part in small.parts.values())
    image = {"image": numpy.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype("float32")}
    exact, near = (Session(f / "image.onnx")(image)["image_tokens"] for f in (folder, small_folder))
    assert 0 < numpy.abs(near - exact).max() < 0.2  # of normalised tokens
    assert len(OnnxCaptioner(small_folder)(pictures(3))) == 3
