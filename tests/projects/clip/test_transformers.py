"""CLIP and SigLIP as transformers computes them, from weights that it saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import CheckpointError
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.projects.clip.names import renamed
from lavis_lite.registry import cards

transformers = pytest.importorskip("transformers")

TEXTS = ["a red cross", "two small green squares above a circle", "a star"]
CLOSE = {"atol": 1e-4, "rtol": 0}
TOKENIZER = load_tokenizer()
SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def clip() -> Any:
    return transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config={**SIZES, "intermediate_size": 256, "image_size": 64, "patch_size": 16},
            text_config={
                **SIZES,
                "intermediate_size": 128,
                "vocab_size": len(TOKENIZER),
                "eos_token_id": TOKENIZER.sep_id,
            },
            projection_dim=32,
        )
    )


def siglip() -> Any:
    return transformers.SiglipModel(
        transformers.SiglipConfig(
            vision_config={**SIZES, "intermediate_size": 256, "image_size": 64, "patch_size": 16},
            text_config={
                **SIZES,
                "intermediate_size": 128,
                "vocab_size": len(TOKENIZER),
                "max_position_embeddings": 32,
            },
        )
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """name -> (transformers' model, every weight of it drawn anew, and the folder it saved)."""
    found = {}
    for name, build in (("clip", clip), ("siglip", siglip)):
        torch.manual_seed(3)
        theirs = build().eval()
        with torch.no_grad():
            for key, parameter in theirs.named_parameters():
                if "logit" not in key:  # norms and biases too: at 1 and 0 a mix-up would not show
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        folder = tmp_path_factory.mktemp(name)
        theirs.save_pretrained(folder)
        found[name] = theirs, folder
    return found


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_and_logits_are_those_of_transformers(
    name: str, saved: Any, images: Tensor
) -> None:
    theirs, folder = saved[name]
    ours = create_model(name, "tiny", checkpoint=str(folder)).eval()
    assert ours.load_report.complete
    text = ours.tokenize(TEXTS)
    with torch.no_grad():
        expected = theirs(input_ids=text.ids, pixel_values=images)
        tokens, states = ours.encode_image(images), ours.encode_text(TEXTS)
        image, words = ours.image_embeds(tokens), ours.text_embeds(states)
        logits = image @ words.T / ours.temperature
        raw = theirs.get_image_features(images).pooler_output
        raw_text = theirs.get_text_features(text.ids).pooler_output
    if name == "siglip":
        logits = logits + ours.logit_bias
        torch.testing.assert_close(ours.rank(tokens, TEXTS), logits, **CLOSE)
    assert expected.image_embeds.std() > 0.05
    torch.testing.assert_close(image, expected.image_embeds, **CLOSE)
    torch.testing.assert_close(words, expected.text_embeds, **CLOSE)
    torch.testing.assert_close(ours.project_image(tokens), raw, **CLOSE)
    torch.testing.assert_close(ours.project_text(states), raw_text, **CLOSE)
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_loss_is_that_of_transformers(name: str, saved: Any, images: Tensor) -> None:
    theirs, folder = saved[name]
    ours = create_model(name, "tiny", checkpoint=str(folder))
    text = ours.tokenize(TEXTS)
    expected = theirs(input_ids=text.ids, pixel_values=images, return_loss=True).loss
    loss = ours({"image": images, "text_input": TEXTS}).loss
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_every_tensor_of_transformers_has_one_place_here(name: str, saved: Any) -> None:
    theirs, folder = saved[name]
    ours = create_model(name, "tiny").state_dict()
    found = renamed(read_weights(folder))
    assert found.keys() == ours.keys()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in ours.items()}
    numbers = sum(value.numel() for value in theirs.state_dict().values())
    assert sum(value.numel() for value in found.values()) == numbers


def test_the_position_ids_of_older_files_are_no_weights(saved: Any, tmp_path: Path) -> None:
    theirs, _ = saved["clip"]
    weights = dict(theirs.state_dict())
    weights["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert create_model("clip", "tiny", checkpoint=str(tmp_path)).load_report.complete


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_another_image_size_resamples_the_positions(name: str, saved: Any) -> None:
    _, folder = saved[name]
    model = create_model(name, "tiny", checkpoint=str(folder), image_size=96)
    assert model.load_report.interpolated == ["visual_encoder.pos_embed"]
    assert model.encode_image(torch.randn(1, 3, 96, 96)).shape[1] == 36 + (name == "clip")


def test_weights_of_clip_start_a_siglip_with_a_new_bias(
    saved: Any, caplog: pytest.LogCaptureFixture
) -> None:
    _, folder = saved["clip"]
    args = cards.preset("clip", "tiny")
    text = {"max_length": 77, "causal": True, "reads_padding": False, "layer_norm_eps": 1e-5}
    model = create_model(
        "siglip",
        "tiny",
        vision=args["vision"],
        text={**text, "activation": "quick_gelu"},
        embed_width=args["embed_width"],
        vision_projection="linear",
        text_projection="linear",
        checkpoint=str(folder),
    )
    assert model.logit_bias.item() == -10
    assert "no logit_bias: it starts anew, at -10" in caplog.text


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("clip", {"text": {"activation": "gelu"}}, "text_config.hidden_act is 'quick_gelu', of"),
        ("clip", {"text": {"num_heads": 8}}, "text_config.num_attention_heads is 4, of this mod"),
        ("clip", {"vision": {"num_heads": 8}}, "vision_config.num_attention_heads is 4, of this"),
        ("siglip", {"vision": {"act_layer": "gelu"}}, "vision_config.hidden_act is 'gelu_pytorch"),
        ("siglip", {"text": {"layer_norm_eps": 1e-5}}, "text_config.layer_norm_eps is 1e-06, of"),
    ],
)
def test_what_shapes_do_not_show_is_compared_with_the_config(
    name: str, change: Any, complaint: str, saved: Any
) -> None:
    _, folder = saved[name]
    with pytest.raises(CheckpointError, match=complaint):
        create_model(name, "tiny", checkpoint=str(folder), **change)
    create_model(name, "tiny", checkpoint=str(folder / "model.safetensors"), **change)


def test_a_config_that_leaves_out_defaults_means_them(saved: Any, tmp_path: Path) -> None:
    _, folder = saved["clip"]
    model = create_model("clip", "tiny", checkpoint=str(folder))
    config = {"model_type": "clip", "text_config": {"num_attention_heads": 4}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"vision_config\.num_attention_heads is 12"):
        model.load_checkpoint(str(tmp_path))
    path.write_text(json.dumps(config | {"vision_config": {"num_attention_heads": 4}}))
    assert model.load_checkpoint(str(tmp_path)).complete
