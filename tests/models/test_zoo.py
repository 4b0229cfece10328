"""Models by name: cards, presets, overrides, weights, processors; the calls of LAVIS's users."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lavis_lite
from lavis_lite import (
    create_model,
    list_models,
    load_model,
    load_model_and_preprocess,
    load_preprocess,
    model_zoo,
    registry,
)
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import CheckpointError, ConfigError, UnknownName
from lavis_lite.registry import cards
from lavis_lite.registry.component import ModelComponent

# BLIP.md's table, which is LAVIS's: the first type is the default.
TYPES = {
    "blip_caption": ["base_coco", "large_coco"],
    "blip_image_text_matching": ["base", "large"],
    "blip_retrieval": ["coco", "flickr"],
    "blip_pretrain": ["base", "large"],
    "blip_vqa": ["vqav2", "okvqa", "aokvqa"],
    "blip_nlvr": ["nlvr"],
    "blip_feature_extractor": ["base", "large"],
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


# ---- names and types


def test_models_are_listed_by_pattern() -> None:
    assert set(TYPES) <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("blip_r*") == ["blip_retrieval"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", TYPES)
def test_every_model_has_the_published_types_and_a_tiny_one(name: str) -> None:
    assert cards.types(name) in ([*TYPES[name], "tiny"], [*TYPES[name], "tiny", "scenes"])
    assert cards.default_type(name) == TYPES[name][0]


@pytest.mark.parametrize("name", TYPES)
def test_every_published_type_has_released_weights(name: str) -> None:
    for type in TYPES[name]:
        assert cards.released_weights(name, type).startswith("https://storage.googleapis.com/")
    assert cards.released_weights(name) == cards.released_weights(name, TYPES[name][0])


def test_a_type_without_weights_lists_those_that_have() -> None:
    with pytest.raises(CheckpointError) as error:
        create_model("blip_caption", "tiny", pretrained=True)
    assert str(error.value).startswith(
        "model 'blip_caption' has no released weights for type 'tiny'; "
        "types with weights: base_coco, large_coco"
    )


def test_an_unknown_model_names_the_nearest() -> None:
    for call in (create_model, load_model, load_model_and_preprocess, cards.card):
        with pytest.raises(UnknownName) as error:
            call("blip_captoin")
        first, second = str(error.value).splitlines()[:2]
        assert first == "no model named 'blip_captoin'. Did you mean 'blip_caption'?"
        assert second.startswith("  known: ")
        assert "blip_caption, blip_classification, " in second


@pytest.mark.parametrize("spelled", [("blip_caption", "tinny"), ("blip_caption.tinny", None)])
def test_an_unknown_type_names_the_nearest_and_all(spelled: tuple[str, str | None]) -> None:
    for call in (create_model, load_model, load_model_and_preprocess):
        with pytest.raises(UnknownName) as error:
            call(*spelled)
        assert str(error.value) == (
            "model 'blip_caption' has no type 'tinny'. Did you mean 'tiny'? "
            "Types: base_coco, large_coco, tiny, scenes"
        )


def test_the_zoo_prints_iterates_and_counts() -> None:
    lines = str(model_zoo).splitlines()
    assert lines[0].split() == ["Architectures", "Types"]
    assert any(
        line.split(maxsplit=1) == ["blip_retrieval", "coco, flickr, tiny, scenes"] for line in lines
    )
    assert repr(model_zoo) == str(model_zoo)
    assert [name for name, _ in model_zoo] == list_models()
    assert len(model_zoo) == sum(len(types) for _, types in model_zoo) >= 16


# ---- presets and overrides


def test_a_preset_is_shared_and_refined_by_its_types() -> None:
    base = cards.preset("blip_retrieval", "coco")
    assert base["vision"] == {"name": "timm/vit_base_patch16_224"}
    assert base["image_size"] == 384
    assert cards.preset("blip_pretrain", "large")["vision"]["drop_path_rate"] == 0.1
    assert "image_size" not in cards.preset("blip_pretrain", "base")  # 224, the builder's default


def test_a_preset_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mended = {**registry.index.zoos}
    package = cards.card("blip_caption")["package"]
    mended[package] = {
        **mended[package],
        "models": {"blip_caption": {"types": {"x": {"preset": "tinny"}}}},
    }
    monkeypatch.setattr(registry.index, "zoos", mended)
    with pytest.raises(UnknownName, match=r"type 'x': no preset 'tinny'\. Did you mean 'tiny'\?"):
        cards.preset("blip_caption", "x")


def test_overrides_are_laid_onto_the_preset() -> None:
    model = create_model("blip_caption", "tiny", vision={"depth": 1}, image_size=32)
    assert len(model.visual_encoder.blocks) == 1
    assert model.visual_encoder.width == 64
    assert model.visual_encoder.grid == (2, 2)


def test_an_override_with_another_name_drops_the_preset_s_arguments() -> None:
    given = {"vision": {"name": "timm/test_resnet"}}
    args = cards.whole(ModelComponent("blip_caption", given, "tiny")).args
    assert args["vision"] == {"name": "timm/test_resnet"}
    assert args["text"]["width"] == 64


def test_null_takes_a_loss_away() -> None:
    args = cards.whole(ModelComponent("blip_pretrain", {"losses": {"itm": None}}, "tiny")).args
    assert list(args["losses"]) == ["itc", "lm"]


def test_a_whole_component_stays_as_it_is() -> None:
    model = cards.whole(ModelComponent("blip_pretrain", {"losses": {"itm": None}}, "tiny"))
    assert cards.whole(model) is model
    assert model.written == {"losses": {"itm": None}}


def test_a_model_component_without_a_type_means_the_default() -> None:
    args = cards.whole(ModelComponent("blip_caption")).args
    assert args == cards.preset("blip_caption", "base_coco")


def test_an_override_that_is_not_taken_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        create_model("blip_caption", "tiny", imagesize=32)
    assert str(error.value).startswith(
        "model 'blip_caption' takes no 'imagesize'. Did you mean 'image_size'? It takes: vision, "
    )
    with pytest.raises(ConfigError, match=r"a loss needs a `name`: \{\}"):
        create_model("blip_retrieval", "tiny", losses={"clip": {}})


# ---- building and loading


@pytest.mark.parametrize("name", TYPES)
def test_tiny_models_are_built_without_a_network(name: str) -> None:
    model = create_model(f"{name}.tiny")
    assert model.card["name"] == name
    assert model.card["type"] == "tiny"
    assert model.show_n_params(return_str=False) < 1_100_000
    assert model.training


def test_random_weights_follow_the_seed() -> None:
    first, second = (
        (torch.manual_seed(3), create_model("blip_caption", "tiny"))[1] for _ in range(2)
    )
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key


def test_weights_load_from_a_file_and_a_report_says_what_happened(tmp_path: Path) -> None:
    model = create_model("blip_caption", "tiny")
    save_weights(model, tmp_path / "mine.safetensors")
    again = create_model("blip_caption", "tiny", checkpoint=str(tmp_path / "mine.safetensors"))
    assert again.load_report.complete
    assert torch.equal(again.visual_encoder.pos_embed, model.visual_encoder.pos_embed)
    loaded = load_model(
        "blip_caption", "tiny", is_eval=True, checkpoint=str(tmp_path / "mine.safetensors")
    )
    assert not loaded.training
    assert torch.equal(loaded.visual_encoder.pos_embed, model.visual_encoder.pos_embed)


def test_overrides_that_do_not_fit_the_weights_say_which_tensors(tmp_path: Path) -> None:
    file = str(tmp_path / "mine.safetensors")
    save_weights(create_model("blip_retrieval", "tiny"), file)
    with pytest.raises(CheckpointError) as error:
        load_model("blip_retrieval", "tiny", checkpoint=file, embed_width=16)
    assert "vision_proj.weight (32, 64) here, (16, 64) in the model" in str(error.value)
    resized = load_model("blip_retrieval", "tiny", checkpoint=file, image_size=96)
    assert resized.visual_encoder.grid == (6, 6)


def test_released_weights_are_loaded_unless_a_checkpoint_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (create_model("blip_caption", "tiny") for _ in range(2))
    save_weights(ours, tmp_path / "released.safetensors")
    save_weights(theirs, tmp_path / "mine.safetensors")
    address = f"file://{tmp_path / 'released.safetensors'}"
    known = registry.index.zoos[cards.card("blip_caption")["package"]]["models"]["blip_caption"]
    monkeypatch.setitem(known["types"]["tiny"], "checkpoint", address)
    monkeypatch.setattr(
        "lavis_lite.checkpoint.locate.local_path", lambda s, *_: str(s).removeprefix("file://")
    )
    expected = ours.visual_encoder.pos_embed
    assert torch.equal(load_model("blip_caption", "tiny").visual_encoder.pos_embed, expected)
    created = create_model("blip_caption.tiny", pretrained=True)
    assert torch.equal(created.visual_encoder.pos_embed, expected)
    fresh = create_model("blip_caption.tiny")
    assert not torch.equal(fresh.visual_encoder.pos_embed, expected)
    mine = load_model("blip_caption", "tiny", checkpoint=str(tmp_path / "mine.safetensors"))
    assert torch.equal(mine.visual_encoder.pos_embed, theirs.visual_encoder.pos_embed)


def test_random_weights_of_load_model_are_announced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_model("blip_caption", "tiny")
        create_model("blip_caption", "tiny")
    assert [record.message for record in caplog.records] == [
        "blip_caption of type 'tiny' has no released weights: these are random"
    ]


def test_the_device_may_be_chosen_by_the_machine() -> None:
    model = load_model("blip_caption", "tiny", device="auto")
    assert model.device.type in ("cpu", "cuda", "mps")


SHIPPED = [
    (name, type)
    for name, types in model_zoo
    for type in types
    if "://" not in (cards.model_type(name, type).get("checkpoint") or "://")
]


@pytest.mark.parametrize(("name", "type"), SHIPPED)
def test_weights_that_the_package_ships_load(name: str, type: str) -> None:
    assert Path(cards.released_weights(name, type)).exists()
    assert load_model(name, type).load_report.complete


# ---- processors


def test_a_model_comes_with_its_processors_and_works_at_once() -> None:
    model, vis, txt = load_model_and_preprocess("blip_caption", "tiny", is_eval=True)
    assert set(vis) == set(txt) == {"train", "eval"}
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    image = vis["eval"](Image.fromarray(pixels))
    assert image.shape == (3, 64, 64)  # the model's image size
    assert vis["train"](Image.fromarray(pixels)).shape == (3, 64, 64)
    assert txt["train"]("A Red square!") == "a picture of a red square"
    assert txt["eval"]("A Red square!") == "a red square"
    (caption,) = model.generate({"image": image[None]}, max_length=12)
    assert isinstance(caption, str)


def test_processors_follow_an_override_of_the_image_size() -> None:
    _, vis, _ = load_model_and_preprocess("blip_retrieval.tiny", image_size=32)
    assert vis["eval"](Image.new("RGB", (9, 9))).shape == (3, 32, 32)


def test_processors_come_from_a_section_as_lavis_writes_it() -> None:
    vis, txt = load_preprocess(
        {
            "vis_processor": {"eval": {"name": "blip_image_eval", "image_size": 48}},
            "text_processor": {"train": {"name": "blip_caption", "max_words": 2}},
        }
    )
    assert vis["eval"](Image.new("RGB", (9, 9))).shape == (3, 48, 48)
    assert vis["train"]("anything") == "anything"
    assert txt["train"]("one two three") == "one two"
    assert txt["eval"]("One") == "One"
    with pytest.raises(ConfigError, match="processor 'eval': a mapping with a `name`, not 'blip'"):
        load_preprocess({"vis_processor": {"eval": "blip"}})


def test_the_public_names_are_those_of_the_design() -> None:
    assert set(lavis_lite.__all__) == {
        "create_model",
        "dataset_zoo",
        "list_models",
        "load_dataset",
        "load_model",
        "load_model_and_preprocess",
        "load_preprocess",
        "load_processor",
        "model_zoo",
        "pipeline",
        "registry",
    }
    assert all(getattr(lavis_lite, name) is not None for name in lavis_lite.__all__)
    assert set(lavis_lite.__all__) <= set(dir(lavis_lite))
    with pytest.raises(AttributeError, match="module 'lavis_lite' has no attribute 'load_modle'"):
        _ = lavis_lite.load_modle
