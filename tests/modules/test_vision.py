"""Vision encoders: one small model per family of timm, and the defaults for one's own."""

from __future__ import annotations

import copy
import inspect
import math
import re
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import ConfigError, DownloadError, UnknownName
from lavis_lite.modules import vision
from lavis_lite.modules.interfaces import VisionEncoder
from lavis_lite.modules.vision import interpolate_pos_embed

TINY_VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}
TINY_SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}

# name, arguments, image size -> width, grid, prefix tokens
FAMILIES = {
    "vit": ("vit_base_patch16_224", TINY_VIT, 64, 16, (4, 4), 1),
    "vit, registers, average": ("test_vit4", {}, 32, 96, (2, 2), 1),
    "vit, rotary positions": ("vit_small_patch16_dinov3_qkvb", {"depth": 1}, 64, 384, (4, 4), 5),
    "vit, attention pooling": ("vit_base_patch16_siglip_224", TINY_VIT, 64, 16, (4, 4), 0),
    "deit, two prefix tokens": ("deit_tiny_distilled_patch16_224", TINY_VIT, 64, 16, (4, 4), 2),
    "swin, channels last": ("swin_tiny_patch4_window7_224", TINY_SWIN, 32, 16, (4, 4), 0),
    "resnet, channels first": ("test_resnet", {}, 64, 96, (2, 2), 0),
    "convnext": ("test_convnext", {}, 64, 64, (2, 2), 0),
    "efficientnet": ("test_efficientnet", {}, 64, 256, (2, 2), 0),
    "pools always": ("efficientvit_b0", {}, 64, 128, (2, 2), 0),
    "mixer": ("mixer_s32_224", {}, 64, 512, (2, 2), 0),
    "rectangle": ("vit_base_patch16_224", TINY_VIT, (32, 64), 16, (2, 4), 1),
}


def build(name: str, image_size: Any = 64, **args: Any) -> Any:
    return registry.build("vision_encoder", {"name": f"timm/{name}", **args}, image_size=image_size)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_timm_model_gives_tokens_and_says_what_they_are(family: str) -> None:
    name, args, size, width, grid, prefix = FAMILIES[family]
    encoder = build(name, size, **args)
    height, breadth = (size, size) if isinstance(size, int) else size
    image = torch.randn(2, 3, height, breadth)
    tokens = encoder(image)
    assert tokens.shape == (2, prefix + math.prod(grid), width)
    assert (encoder.width, vision.grid_of(encoder)) == (width, grid)
    assert (getattr(encoder, "num_prefix_tokens", 0) or 0) == prefix
    assert vision.pool(encoder, tokens).shape == (2, width)
    assert isinstance(encoder, VisionEncoder)
    tokens.square().sum().backward()
    first = next(p for p in encoder.parameters() if p.ndim == 4)
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit3", "test_vit4", "test_resnet", "swin_tiny_patch4_window7_224"]
)
def test_weights_have_timm_s_names(name: str) -> None:
    args = TINY_SWIN if "swin" in name else {}
    encoder = build(name, 64, **args)
    reference = timm.create_model(name, num_classes=0, **args)
    assert set(encoder.state_dict()) == set(reference.state_dict())
    assert isinstance(encoder, type(reference))


def test_maps_are_flattened_row_by_row() -> None:
    image = torch.randn(1, 3, 64, 96)
    first, last = (
        build("test_resnet", (64, 96)).eval(),
        build("swin_tiny_patch4_window7_224", (32, 48), **TINY_SWIN).eval(),
    )
    with torch.no_grad():
        features = first.forward_features(image)  # (1, D, rows, columns)
        assert features.shape[2:] == first.grid == (2, 3)
        assert torch.equal(first(image)[0, 0 * 3 + 2], features[0, :, 0, 2])
        image = image[..., :32, :48]
        features = last.forward_features(image)  # (1, rows, columns, D)
        assert features.shape[1:3] == last.grid == (4, 6)
        assert torch.equal(last(image)[0, 2 * 6 + 4], features[0, 2, 4])


def test_tokens_are_those_of_the_timm_model() -> None:
    encoder = build("vit_base_patch16_224", 64, **TINY_VIT).eval()
    reference = timm.create_model(
        "vit_base_patch16_224", num_classes=0, img_size=64, global_pool="", **TINY_VIT
    ).eval()
    reference.load_state_dict(encoder.state_dict())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(image), reference.forward_features(image))


def test_encoders_can_be_copied() -> None:
    encoder = build("test_vit", 32).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(encoder)(image), encoder(image))


def test_positions_and_matrices_can_be_drawn_otherwise() -> None:
    plain = build("vit_base_patch16_224", 64, **TINY_VIT)
    drawn = build("vit_base_patch16_224", 64, position_std=0.5, init_scale=1.0, **TINY_VIT)
    assert plain.pos_embed.std() < 0.05
    assert 0.4 < drawn.pos_embed.std() < 0.6
    weight = drawn.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(1 / math.sqrt(16), rel=0.15)


def test_a_model_without_learned_positions_ignores_their_deviation() -> None:
    assert build("test_resnet", 64, position_std=0.5).width == 96


# ---- pooling


def test_pooling_takes_the_class_token_or_the_mean() -> None:
    tokens = torch.arange(12.0).view(1, 4, 3)
    assert vision.pool_tokens(tokens, 1).tolist() == [[0, 1, 2]]
    assert vision.pool_tokens(tokens, 0).tolist() == [[4.5, 5.5, 6.5]]
    assert torch.equal(vision.pool(nn.Identity(), tokens), tokens.mean(dim=1))


def test_an_encoder_s_own_pooling_wins() -> None:
    class Last(nn.Module):
        def pool(self, tokens: Tensor) -> Tensor:
            return tokens[:, -1]

    tokens = torch.randn(2, 4, 3)
    assert torch.equal(vision.pool(Last(), tokens), tokens[:, -1])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vit_base_patch16_siglip_224", TINY_VIT),  # attention pooling
        ("test_vit4", {}),  # the mean of the patches, then a norm
        ("vit_base_patch16_224", TINY_VIT),  # the class token
        ("deit_tiny_distilled_patch16_224", TINY_VIT),
        ("test_resnet", {}),
        ("resnet50_clip", {}),  # attention over a map
    ],
)
def test_a_timm_model_pools_as_timm_does(name: str, args: dict[str, Any]) -> None:
    encoder = build(name, 64, **args).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        pooled = vision.pool(encoder, encoder(image))
        expected = encoder.forward_head(encoder.forward_features(image), pre_logits=True)
    torch.testing.assert_close(pooled, expected)


def test_an_encoder_that_does_not_know_its_grid_has_none() -> None:
    assert vision.grid_of(nn.Identity()) is None


# ---- names and arguments


def test_timm_s_names_are_listed_by_a_pattern() -> None:
    assert registry.names("vision_encoder", "timm/resnet1[89]") == ["timm/resnet18"]
    assert {"timm/resnet14t", "timm/resnet18"} <= set(
        registry.names("vision_encoder", "timm/resnet1*")
    )
    assert registry.names("vision_encoder").count("timm/*") == 1


def test_the_arguments_are_those_of_the_timm_class_and_ours() -> None:
    arguments = registry.entry("vision_encoder", "timm/vit_base_patch16_224").parameters
    assert {"embed_dim", "depth", "drop_path_rate", "pretrained", "image_size"} <= set(arguments)
    assert not {"num_classes", "img_size", "self", "kwargs", "name"} & set(arguments)
    distilled = registry.entry("vision_encoder", "timm/deit_tiny_distilled_patch16_224").arguments
    assert "embed_dim" in distilled  # its class passes **kwargs on
    assert arguments["depth"].default is None
    assert arguments["pretrained"].default is False
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in arguments.values())


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownName) as error:
        build("resnt18")
    assert str(error.value) == (
        "no timm model 'resnt18'. Did you mean 'resnet18'? "
        "`lavis-lite list --kind vision_encoder 'timm/*'` lists them"
    )


def test_an_argument_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'timm/test_vit' takes no 'embed_dmi'\. Did you mean 'embed_dim'"
    ):
        build("test_vit", embed_dmi=3)
    with pytest.raises(ConfigError, match=r"takes no 'img_size'\. Did you mean 'image_size'"):
        build("test_vit", img_size=3)


def test_arguments_that_do_not_fit_are_an_error_that_shows_them() -> None:
    with pytest.raises(ConfigError, match=r"timm/test_vit cannot be built with .*embed_dim=7"):
        build("test_vit", embed_dim=7)


def test_an_image_size_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"timm/inception_v3 does not take images of \(64, 64\)"):
        build("inception_v3", 64)


@pytest.mark.skipif(not timm.is_model("efficientvim_m1"), reason="this timm has no EfficientViM")
def test_a_model_of_several_feature_maps_is_an_error() -> None:
    with pytest.raises(ConfigError, match="efficientvim_m1 gives several feature maps"):
        build("efficientvim_m1", 224)


@pytest.mark.usefixtures("hub_answers")
def test_weights_that_cannot_be_fetched_are_a_download_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **args: Any) -> Any:
        if pretrained:
            raise ConnectionError("no route")
        return create(name, **args)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DownloadError, match="timm/test_vit: its weights cannot be fetched: no route"
    ):
        build("test_vit", pretrained=True)


# ---- position embeddings


def test_positions_are_resampled_by_the_published_formula() -> None:
    weight = torch.randn(1, 1 + 9, 6)
    for side in (2, 3, 5, 8):
        resampled = interpolate_pos_embed(weight, 1 + side * side)
        grid = weight[0, 1:].T.reshape(1, 6, 3, 3)
        expected = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        assert resampled.shape == (1, 1 + side * side, 6)
        assert torch.equal(resampled[:, :1], weight[:, :1])
        torch.testing.assert_close(resampled[0, 1:], expected.reshape(6, -1).T)


def test_the_same_number_of_tokens_and_rectangles_are_left_alone() -> None:
    weight = torch.randn(1, 10, 6)
    assert interpolate_pos_embed(weight, 10) is weight
    assert interpolate_pos_embed(weight, 1 + 6) is weight
    assert interpolate_pos_embed(torch.ones(1, 7, 6), 1 + 9).shape == (1, 7, 6)


def test_a_square_of_positions_is_resampled_to_a_rectangle() -> None:
    weight = torch.randn(1, 1 + 16, 6)
    resampled = interpolate_pos_embed(weight, 1 + 8, grid=(2, 4))
    square = weight[:, 1:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    expected = F.interpolate(square, size=(2, 4), mode="bicubic", align_corners=False)
    assert torch.equal(resampled[:, :1], weight[:, :1])
    assert torch.equal(resampled[:, 1:], expected.flatten(2).transpose(1, 2))
    # As many, but in another shape.
    assert not torch.equal(interpolate_pos_embed(weight, 1 + 16, grid=(2, 8)), weight)


def test_prefix_tokens_and_dtype_are_kept() -> None:
    weight = torch.randn(1, 5 + 4, 6, dtype=torch.float16)
    resampled = interpolate_pos_embed(weight, 5 + 16, num_prefix_tokens=5)
    assert resampled.dtype == torch.float16
    assert torch.equal(resampled[:, :5], weight[:, :5])


@pytest.mark.parametrize("shape", [(2, 5, 32), (2, 64, 3, 3)], ids=["another width", "a map"])
def test_an_encoder_that_gives_no_tokens_of_its_width_is_named(shape: tuple[int, ...]) -> None:
    class Odd(nn.Module):
        width = 64

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.new_zeros(shape)

    message = rf"Odd gives {re.escape(str(shape))} .* tokens \(B, N, D\), .* `width`, 64"
    with pytest.raises(ConfigError, match=message):
        vision.encode(Odd(), torch.zeros(2, 3, 32, 32))


def test_images_take_the_format_of_the_weights_but_bytes_are_no_images():
    encoder = vision.timm_encoder("test_vit", image_size=160).bfloat16()
    assert vision.encode(encoder, torch.rand(1, 3, 160, 160)).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        vision.encode(encoder, torch.zeros(1, 3, 160, 160, dtype=torch.uint8))
