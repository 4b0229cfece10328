"""BLIP between here and transformers: keys, configs, logits and ids, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_lite import create_model, registry
from lavis_lite.checkpoint.weights import load_state
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.projects.blip.names import from_transformers, to_transformers

transformers = pytest.importorskip("transformers")

CLASSES = {
    "blip_caption": "BlipForConditionalGeneration",
    "blip_image_text_matching": "BlipForImageTextRetrieval",
    "blip_retrieval": "BlipForImageTextRetrieval",
    "blip_vqa": "BlipForQuestionAnswering",
}
QUESTIONS = ["what colour is the cat", "how many green balls", "where"]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def drawn(name: str, **overrides: Any) -> Any:
    """A tiny model whose weights are large enough for its outputs to differ."""
    generator = torch.Generator().manual_seed(1)
    model = create_model(name, "tiny", **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any, Path]]:
    """``exported(name)`` -> our model, transformers' model of the folder it wrote, the folder."""
    made: dict[str, tuple[Any, Any, Path]] = {}

    def export(name: str) -> tuple[Any, Any, Path]:
        if name not in made:
            model = drawn(name)
            folder = model.save_transformers(tmp_path_factory.mktemp(name))
            theirs = getattr(transformers, CLASSES[name]).from_pretrained(folder)
            made[name] = model, theirs.eval(), folder
        return made[name]

    return export


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def written(model: Any, write: Callable[[], Any]) -> list[list[int]]:
    """The ids of each text that a model decodes, without the prompt."""
    ids: list[list[int]] = []
    decode = model.tokenizer.decode
    model.tokenizer.decode = lambda row: ids.append([int(i) for i in row]) or decode(row)
    try:
        write()
    finally:
        del model.tokenizer.decode
    return ids


# ---- names


@pytest.mark.parametrize(
    ("published", "theirs"),
    [
        ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
        ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
        (
            "visual_encoder.patch_embed.proj.bias",
            "vision_model.embeddings.patch_embedding.bias",
        ),
        (
            "visual_encoder.blocks.11.norm2.weight",
            "vision_model.encoder.layers.11.layer_norm2.weight",
        ),
        (
            "visual_encoder.blocks.3.attn.proj.bias",
            "vision_model.encoder.layers.3.self_attn.projection.bias",
        ),
        ("visual_encoder.norm.weight", "vision_model.post_layernorm.weight"),
        ("itm_head.bias", "itm_head.bias"),
    ],
)
def test_a_key_has_a_name_in_each_dialect(published: str, theirs: str) -> None:
    assert to_transformers(published) == theirs
    assert from_transformers(theirs) == published


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.layer.weight",
        "vision_model.embeddings.layer_norm1.weight",
        "vision_model.encoder.layers.1.post_layernorm.weight",
        "text_model.embeddings.weight",
    ],
)
def test_a_key_that_transformers_does_not_have_stays_as_it_is(key: str) -> None:
    assert from_transformers(key) == key


@pytest.mark.parametrize("key", ["temp", "image_queue", "visual_encoder_m.norm.bias", "cls_head.0"])
def test_what_transformers_has_no_place_for_has_no_name(key: str) -> None:
    assert to_transformers(key) is None


@pytest.mark.parametrize("name", CLASSES)
def test_the_names_are_those_of_the_class_one_to_one(name: str, exported: Any) -> None:
    _, theirs, _ = exported(name)
    keys = set(theirs.state_dict())
    back = {key: from_transformers(key) for key in keys}
    assert len(set(back.values())) == len(keys)
    assert {to_transformers(key) for key in back.values()} == keys


# ---- ours in transformers


@pytest.mark.fault(56)
def test_a_captioner_has_the_same_logits_there(exported: Any, images: torch.Tensor) -> None:
    model, theirs, _ = exported("blip_caption")
    text = model.tokenizer.encode(["a picture of a red cat"] * 3, 40)
    ids = text.replace_first(model.tokenizer.bos_id).ids
    kv = model.text_decoder.bert.project(model.encode_image(images))
    ours = model.text_decoder(ids, image_kv=kv)
    assert ours.std() > 0.1
    torch.testing.assert_close(theirs(pixel_values=images, input_ids=ids).logits, ours, **CLOSE)


@pytest.mark.fault(56)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_captioner_writes_the_same_ids_there(
    beams: int, exported: Any, images: torch.Tensor
) -> None:
    model, theirs, _ = exported("blip_caption")
    lengths = {"max_length": 20, "min_length": 8}
    ours = written(model, lambda: model.generate({"image": images}, num_beams=beams, **lengths))
    prompt = model.tokenizer.encode([model.prompt] * 3, 40).ids
    found = theirs.generate(images, input_ids=prompt, num_beams=beams, **lengths).tolist()
    assert ours == [row[model.prompt_length :] for row in found]
    assert len({tuple(row) for row in ours}) > 1


@pytest.mark.parametrize("name", ["blip_image_text_matching", "blip_retrieval"])
def test_a_matcher_has_the_same_scores_there(
    name: str, exported: Any, images: torch.Tensor
) -> None:
    model, theirs, _ = exported(name)
    text = model.tokenizer.encode(QUESTIONS, 35)
    marked = text.replace_first(model.tokenizer.enc_id)  # which transformers leaves to its users

    def scores(batch: TextBatch, **options: Any) -> torch.Tensor:
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "pixel_values": images}
        return theirs(**inputs, **options).itm_score

    tokens = model.encode_image(images)
    torch.testing.assert_close(scores(marked), model.match(tokens, QUESTIONS), **CLOSE)
    cosines = model.image_embeds(tokens) @ model.text_embeds(model.encode_text(QUESTIONS)).T
    torch.testing.assert_close(scores(text, use_itm_head=False), cosines, **CLOSE)


@pytest.mark.parametrize("beams", [1, 3])
def test_questions_get_the_same_answers_there(
    beams: int, exported: Any, images: torch.Tensor
) -> None:
    # One question at a time: transformers looks at the padding of the others in a batch.
    model, theirs, _ = exported("blip_vqa")
    lengths = {"num_beams": beams, "max_len": 10, "min_len": 3}
    for image, question in zip(images.split(1), QUESTIONS, strict=True):
        samples = {"image": image, "text_input": [question]}
        (ours,) = written(
            model,
            lambda s=samples: model.predict_answers(s, inference_method="generate", **lengths),
        )
        text = model.tokenizer.encode([question], 35).replace_first(model.tokenizer.enc_id)
        options = {"num_beams": beams, "max_length": 10, "min_length": 3}
        found = theirs.generate(text.ids, image, attention_mask=text.mask, **options)
        assert ours == [i for i in found[0, 1:].tolist() if i != model.tokenizer.sep_id]


def test_the_processor_there_reads_texts_and_images_alike(exported: Any) -> None:
    model, _, folder = exported("blip_caption")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    text = "A red cat, déjà vu: 2 balls!"
    ids = processor(text=text).input_ids
    assert list(np.ravel(ids)) == model.tokenizer.encode([text], 40).ids[0].tolist()
    names = processor.tokenizer.convert_ids_to_tokens
    assert names([model.tokenizer.bos_id, model.tokenizer.enc_id]) == ["[DEC]", "[ENC]"]
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    ours = registry.build("processor", {"name": "blip_image_eval"}, image_size=64)(picture)
    images = transformers.BlipImageProcessorPil.from_pretrained(folder)
    theirs = images(picture, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_what_serves_training_alone_stays_here(exported: Any) -> None:
    model, theirs, _ = exported("blip_retrieval")
    left = {k.partition(".")[0] for k in model.state_dict()} - {
        from_transformers(k).partition(".")[0] for k in theirs.state_dict()
    }
    assert left == {
        "temp",
        "losses",
        "visual_encoder_m",
        "text_encoder_m",
        "vision_proj_m",
        "text_proj_m",
    }


# ---- what transformers cannot be


@pytest.mark.parametrize(
    "name", ["blip_pretrain", "blip_nlvr", "blip_classification", "blip_feature_extractor"]
)
def test_a_model_without_a_class_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"transformers has no class for Blip\w+: it has capt"):
        create_model(name, "tiny").save_transformers(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


NOT_PLAIN = {
    "no ViT": ({"name": "timm/test_resnet"}, "plain ViT as its vision encoder; this model has"),
    "layer scale": ({"init_values": 0.1}, "blocks.0.ls1.gamma has no place"),
    "another activation": ({"act_layer": "relu"}, "but computes something else from them"),
}


@pytest.mark.parametrize(("vision", "complaint"), NOT_PLAIN.values(), ids=list(NOT_PLAIN))
def test_a_vision_encoder_that_transformers_cannot_be_is_refused(
    vision: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    model = create_model("blip_caption", "tiny", vision=vision)
    with pytest.raises(ConfigError, match=complaint):
        model.save_transformers(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_that_transformers_does_not_read_is_refused(tmp_path: Path) -> None:
    model = create_model("blip_caption", "tiny")
    model.tokenizer = object()
    with pytest.raises(ConfigError, match="WordPiece vocabulary; this model's tokenizer is a obj"):
        model.save_transformers(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_widths_that_transformers_ties_to_each_other_are_refused(tmp_path: Path) -> None:
    # Its answer decoder is built for image tokens, and looks at the states of a question.
    model = create_model("blip_vqa", "tiny", vision={"embed_dim": 96})
    with pytest.raises(ConfigError, match=r"cross\S+.key.weight is \(64, 64\), not \(64, 96"):
        model.save_transformers(tmp_path / "out")


# ---- transformers' in ours


@pytest.mark.fault(56)
@pytest.mark.parametrize("name", ["blip_caption", "blip_image_text_matching", "blip_vqa"])
def test_a_folder_of_transformers_loads_to_the_bit(name: str, exported: Any) -> None:
    model, _, folder = exported(name)
    again = create_model(name, "tiny", checkpoint=str(folder))
    assert again.load_report.complete
    renamed = "vision_model.post_layernorm.weight -> visual_encoder.norm.weight"
    assert renamed in again.load_report.converted
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_repository_of_the_hub_is_read_like_the_folder_it_was_made_of(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, folder = exported("blip_image_text_matching")

    def hf_hub_download(repo: str, file: str, **options: Any) -> str:
        assert repo == "acme/blip-tiny"
        return str(folder / file)

    monkeypatch.setenv("LAVIS_LITE_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hf_hub_download)
    again = create_model("blip_image_text_matching", "tiny", checkpoint="acme/blip-tiny")
    assert torch.equal(again.itm_head.weight, model.itm_head.weight)
    with pytest.raises(CheckpointError, match=r"acme/blip-tiny: text_config.num_attention_heads"):
        create_model(
            "blip_image_text_matching", "tiny", text={"num_heads": 2}, checkpoint="acme/blip-tiny"
        )


def test_a_folder_of_transformers_at_another_image_size_is_resampled(exported: Any) -> None:
    _, _, folder = exported("blip_caption")
    larger = create_model("blip_caption", "tiny", checkpoint=str(folder), image_size=96)
    assert larger.load_report.interpolated == ["visual_encoder.pos_embed"]
    assert larger.visual_encoder.pos_embed.shape == (1, 37, 64)


def test_weights_with_position_ids_as_older_transformers_wrote_them_load(exported: Any) -> None:
    _, theirs, _ = exported("blip_vqa")
    weights = dict(theirs.state_dict())
    for tower in ("text_encoder.", "text_decoder.bert."):
        weights[f"{tower}embeddings.position_ids"] = torch.arange(512)[None]
    report = load_state(create_model("blip_vqa", "tiny"), weights)
    assert report.complete
    assert sum(note.endswith("position_ids -> dropped") for note in report.converted) == 2


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "num_attention_heads", 8),
        ("text_config", "num_attention_heads", None),  # left out: transformers' default is 8
        ("vision_config", "num_attention_heads", 2),
        ("vision_config", "hidden_act", "quick_gelu"),
    ],
)
def test_weights_that_mean_something_else_are_refused(
    section: str, key: str, value: Any, exported: Any, tmp_path: Path
) -> None:
    _, _, folder = exported("blip_caption")
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config[section][key] = value
    if value is None:
        del config[section][key]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"{section}.{key} in its config.json is"):
        create_model("blip_caption", "tiny", checkpoint=str(tmp_path))
    # By the weights alone they fit, and who knows better may say so.
    file = str(tmp_path / "model.safetensors")
    assert create_model("blip_caption", "tiny", checkpoint=file).load_report.complete
