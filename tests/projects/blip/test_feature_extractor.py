"""Features of an image and a text: apart, together, and whatever their batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lavis_lite import create_model
from lavis_lite.checkpoint.weights import load_state
from lavis_lite.errors import ConfigError
from lavis_lite.models.features import Features

TEXTS = ["a cross", "there are two small blue circles above a triangle", "nothing"]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return create_model("blip_feature_extractor", "tiny").eval()


@pytest.fixture(scope="module")
def samples() -> dict[str, Any]:
    return {"image": torch.randn(3, 3, 64, 64), "text_input": TEXTS}


def test_each_mode_gives_its_own_features(model: Any, samples: dict[str, Any]) -> None:
    length = model.tokenize(TEXTS).ids.shape[1]
    image = model.extract_features(samples, "image")
    text = model.extract_features(samples, mode="text")
    both = model.extract_features(samples)
    assert isinstance(both, Features)
    assert image.image_embeds.shape == (3, 17, 64)
    assert image.image_embeds_proj.shape == (3, 17, 32)
    assert text.text_embeds.shape == (3, length, 64)
    assert text.text_embeds_proj.shape == (3, length, 32)
    assert both.multimodal_embeds.shape == (3, length, 64)
    for projected in (image.image_embeds_proj, text.text_embeds_proj):
        torch.testing.assert_close(projected.norm(dim=-1), torch.ones(projected.shape[:2]))
    assert image.text_embeds is text.image_embeds is both.text_embeds is None
    assert image.multimodal_embeds is text.multimodal_embeds is None
    assert both.image_embeds.equal(image.image_embeds)


def test_the_first_tokens_are_what_a_matcher_of_the_same_weights_compares(
    model: Any, samples: dict[str, Any]
) -> None:
    matcher = create_model("blip_image_text_matching", "tiny").eval()
    state = matcher.state_dict() | {
        key: value for key, value in model.state_dict().items() if key != "temp"
    }
    load_state(matcher, state)
    image = model.extract_features(samples, "image").image_embeds_proj[:, 0]
    text = model.extract_features(samples, "text").text_embeds_proj[:, 0]
    torch.testing.assert_close(image @ text.T, matcher(samples, match_head="itc"))
    states = model.extract_features(samples).multimodal_embeds[:, 0]
    torch.testing.assert_close(matcher.itm_head(states), matcher(samples, match_head="itm"))


def test_features_of_a_token_do_not_depend_on_the_batch(
    model: Any, samples: dict[str, Any]
) -> None:
    lengths = model.tokenize(TEXTS).mask.sum(1)
    text = model.extract_features(samples, "text").text_embeds
    both = model.extract_features(samples).multimodal_embeds
    for row, length in enumerate(lengths):
        alone = {"image": samples["image"][row : row + 1], "text_input": [TEXTS[row]]}
        for together, own in (
            (text, model.extract_features(alone, "text").text_embeds),
            (both, model.extract_features(alone).multimodal_embeds),
        ):
            assert own.shape[1] == length
            torch.testing.assert_close(together[row, :length], own[0], atol=1e-5, rtol=0)


def test_one_modality_is_enough_for_its_mode(model: Any, samples: dict[str, Any]) -> None:
    only_text = model.extract_features({"text_input": "a cross"}, mode="text")
    assert only_text.text_embeds.shape[0] == 1
    only_image = model.extract_features({"image": samples["image"]}, mode="image")
    assert only_image.image_embeds.shape[0] == 3
    with pytest.raises(ConfigError, match="mode 'multimodal' reads text_input, which samples lack"):
        model.extract_features({"image": samples["image"]})
    with pytest.raises(ConfigError, match="mode 'text' reads text_input"):
        model.extract_features({"image": samples["image"], "text_input": None}, mode="text")
    with pytest.raises(ConfigError, match=r"mode: 'images' is not .* Did you mean 'image'"):
        model.extract_features(samples, mode="images")
    with pytest.raises(ConfigError, match="text_input: 2 texts for 3 images"):
        model.extract_features({**samples, "text_input": TEXTS[:2]})


def test_features_come_without_dropout_and_gradients(samples: dict[str, Any]) -> None:
    model = create_model("blip_feature_extractor", "tiny", text={"dropout": 0.5}).train()
    first = model.extract_features(samples).multimodal_embeds
    assert model.training
    assert first.equal(model.extract_features(samples).multimodal_embeds)
    assert not first.requires_grad


def test_the_temperature_is_there(model: Any) -> None:
    assert model.temp.item() == pytest.approx(0.07)
    assert model.temperature.dtype == torch.float32


def test_a_pre_trained_model_s_weights_are_enough() -> None:
    pretrained = create_model("blip_pretrain", "tiny")
    model = create_model("blip_feature_extractor", "tiny")
    assert load_state(model, dict(pretrained.state_dict())).complete
    assert model.text_proj.weight.equal(pretrained.text_proj.weight)
