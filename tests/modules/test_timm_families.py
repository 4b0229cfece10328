"""One small model of every family of timm as BLIP's vision encoder, in a step of pre-training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lavis_lite import create_model, load_model_and_preprocess, registry
from lavis_lite.checkpoint.weights import load_weights, save_weights
from lavis_lite.errors import ConfigError
from lavis_lite.modules import vision

VIT = {"embed_dim": 32, "depth": 1, "num_heads": 2}
FOUR = {"dims": [16, 32, 32, 32], "depths": [1, 1, 1, 1]}
FOUR_EMBEDDED = {"embed_dims": [16, 32, 32, 32], "depths": [1, 1, 1, 1]}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}

Family = tuple[str, dict[str, Any], int]
# timm's module -> a model, arguments that make it small, an image size that it takes
SMALL: dict[str, Family] = {
    "beit": ("beit_base_patch16_224", VIT, 64),
    "byobnet": ("test_byobnet", {}, 64),
    "cait": ("cait_xxs24_224", VIT, 64),
    "convit": ("convit_tiny", VIT, 64),
    "convnext": ("test_convnext", {}, 64),
    "cspnext": ("cspnext_tiny", {"channels": [8, 8, 16, 16]}, 64),
    "deepseek_vit": ("deepseek_vit_412m", VIT, 224),
    "deit": ("deit_tiny_patch16_224", VIT, 64),
    "densenet": ("densenet121", {"block_config": [1, 1, 1, 1]}, 64),
    "dla": ("dla46x_c", {"levels": [1, 1, 1, 1, 1, 1]}, 64),
    "edgenext": ("edgenext_xx_small", FOUR, 64),
    "efficientformer": ("efficientformer_l1", FOUR_EMBEDDED, 224),
    "efficientformer_v2": (
        "efficientformerv2_s0",
        {"embed_dims": [16, 32, 64], "depths": [1, 1, 1]},
        64,
    ),
    "efficientnet": ("test_efficientnet", {}, 64),
    "efficientvit_mit": ("efficientvit_b0", {"depths": [1, 1, 1]}, 64),
    "efficientvit_msra": ("efficientvit_m0", {"depth": [1, 1, 1, 1]}, 64),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", VIT, 64),
    "fasternet": ("fasternet_t0", {"embed_dim": 16, "depths": [1, 1, 1, 1]}, 64),
    "fastvit": ("fastvit_t8", {"embed_dims": [16, 32, 32, 32], "layers": [1, 1, 1, 1]}, 64),
    "gemma4_vit": ("gemma4_vit_167m", VIT, 64),
    "ghostnet": ("ghostnet_050", {}, 64),
    "inception_next": ("inception_next_atto", FOUR, 64),
    "lcnetv2": ("lcnetv2_small", {"depths": [1, 1, 1, 1]}, 64),
    "mambaout": ("test_mambaout", {}, 64),
    "maxxvit": ("test_coatnet", {}, 64),
    "mobilenetv3": ("lcnet_035", {}, 64),
    "mobilevit": ("mobilevit_xxs", {}, 64),
    "nfnet": ("test_nfnet", {}, 64),
    "repghost": ("repghostnet_050", {}, 64),
    "resnet": ("test_resnet", {}, 64),
    "starnet": ("starnet_s050", {}, 64),
    "swin_transformer": ("swin_tiny_patch4_window7_224", SWIN, 64),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", SWIN, 64),
    "vision_transformer": ("test_vit", {}, 64),
    "vision_transformer_relpos": ("test_vit_relpos", {}, 64),
    "vovnet": ("ese_vovnet19b_slim_dw", {}, 64),
}
# Those that their arguments do not make small: a second each, some more.
LARGE: dict[str, Family] = {
    "byoanet": ("halonet_h1", {}, 256),
    "coat": ("coat_lite_tiny", {}, 64),
    "convmixer": ("convmixer_768_32", {}, 64),
    "cpubone": ("cpubone_nano", {}, 64),
    "csatv2": ("csatv2", {}, 64),
    "cspnet": ("cs3darknet_focus_s", {}, 64),
    "davit": ("davit_tiny", {}, 64),
    "dpn": ("dpn48b", {}, 64),
    "focalnet": ("focalnet_tiny_srf", {}, 64),
    "gcvit": ("gcvit_xxtiny", {}, 64),
    "hardcorenas": ("hardcorenas_b", {}, 64),
    "hgnet": ("hgnetv2_b0", {}, 64),
    "hiera": ("hiera_tiny_224", {}, 64),
    "hieradet_sam2": ("sam2_hiera_tiny", {}, 64),
    "hrnet": ("hrnet_w18_small", {}, 64),
    "iformer": ("iformer_t", {}, 64),
    "inception_resnet_v2": ("inception_resnet_v2", {}, 96),
    "inception_v3": ("inception_v3", {}, 96),
    "inception_v4": ("inception_v4", {}, 96),
    "levit": ("levit_128s", {}, 64),
    "lowformer": ("lowformer_b0", {}, 64),
    "metaformer": ("poolformerv2_s12", {}, 64),
    "mlp_mixer": ("gmlp_ti16_224", {}, 64),
    "mobilenetv5": ("mobilenetv5_base", {}, 64),
    "mvitv2": ("mvitv2_tiny", {}, 64),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", {}, 64),
    "nasnet": ("nasnetalarge", {}, 64),
    "nest": ("nest_tiny", {}, 64),
    "nextvit": ("nextvit_small", {}, 64),
    "pit": ("pit_ti_224", {}, 64),
    "pnasnet": ("pnasnet5large", {}, 64),
    "pvt_v2": ("pvt_v2_b0", {}, 64),
    "qwen3_vit": ("qwen3_vit_88m", {}, 64),
    "rdnet": ("rdnet_tiny", {}, 64),
    "regnet": ("regnetx_002", {}, 64),
    "repvit": ("repvit_m1", {}, 64),
    "res2net": ("res2next50", {}, 64),
    "resnest": ("resnest14d", {}, 64),
    "resnetv2": ("resnetv2_18", {}, 64),
    "rexnet": ("rexnet_100", {}, 64),
    "selecsls": ("selecsls42", {}, 64),
    "senet": ("legacy_seresnet18", {}, 64),
    "sequencer": ("sequencer2d_s", {}, 64),
    "shvit": ("shvit_s1", {}, 64),
    "sknet": ("skresnet18", {}, 64),
    "swiftformer": ("swiftformer_xs", {}, 64),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", {}, 64),
    "tiny_vit": ("tiny_vit_5m_224", {}, 64),
    "tnt": ("tnt_s_legacy_patch16_224", {}, 64),
    "tresnet": ("tresnet_m", {}, 64),
    "twins": ("twins_svt_small", {}, 64),
    "vgg": ("vgg11", {}, 64),
    "visformer": ("visformer_tiny", {}, 64),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {}, 64),
    "vision_transformer_sam": ("samvit_base_patch16_224", {}, 64),
    "vitamin": ("vitamin_small_224", {}, 64),
    "volo": ("volo_d1_224", {}, 64),
    "xception": ("legacy_xception", {}, 64),
    "xception_aligned": ("xception41p", {}, 64),
    "xcit": ("xcit_nano_12_p8_224", {}, 64),
}
# Several maps of different widths, or branches: no one sequence of tokens.
REFUSED = {"crossvit": ("crossvit_tiny_240", 240), "efficientvim": ("efficientvim_m1", 224)}
SEEN = "1.0.31"  # the timm whose modules are all listed here
FAMILIES = [
    *SMALL,
    *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE),
]


def encoder(name: str, args: dict[str, Any], size: Any, **more: Any) -> Any:
    spec = {"name": f"timm/{name}", **args, **more}
    return registry.build("vision_encoder", spec, image_size=size)


def test_every_family_of_timm_is_here() -> None:
    listed = {*SMALL, *LARGE, *REFUSED}
    assert len(listed) == len(SMALL) + len(LARGE) + len(REFUSED)
    if timm.__version__ == SEEN:
        assert listed == set(timm.list_modules())


def timms_own_pooling(tower: Any, image: torch.Tensor) -> torch.Tensor:
    """What the timm model gives as features of the whole image."""
    features = tower.forward_features(image)
    return tower.forward_head(features, pre_logits=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_pretrains_blip(family: str) -> None:
    name, args, size = {**SMALL, **LARGE}[family]
    spec = {"name": f"timm/{name}", **args}
    model: Any = create_model("blip_pretrain", "tiny", vision=spec, image_size=size).train()
    image = torch.randn(2, 3, size, size)
    samples = {"image": image, "text_input": ["a red square", "a cross"]}
    model({**samples, "image_id": torch.tensor([0, 1])}).loss.backward()
    tower = model.visual_encoder
    first = next(p for p in tower.parameters() if p.ndim == 4 or p.ndim == 2)
    assert first.grad is not None
    assert first.grad.isfinite().all()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())

    tower.eval()
    with torch.no_grad():
        tokens = tower(image)
        assert tokens.shape[::2] == (2, tower.width)
        if tower.grid is not None:
            assert tokens.shape[1] == tower.num_prefix_tokens + math.prod(tower.grid)
        pooled = vision.pool(tower, tokens)
        assert pooled.shape == (2, tower.width)
        if (own := timms_own_pooling(tower, image)).shape == pooled.shape:
            torch.testing.assert_close(pooled, own, rtol=0, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            assert tower(image).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_trains_clip(family: str) -> None:
    name, args, size = {**SMALL, **LARGE}[family]
    spec = {"name": f"timm/{name}", **args}
    model: Any = create_model("clip", "tiny", vision=spec, image_size=size).train()
    samples = {"image": torch.randn(2, 3, size, size), "text_input": ["a red square", "a cross"]}
    output = model(samples)
    output.loss.backward()
    assert output.loss.isfinite()
    trained = [p for p in model.visual_encoder.parameters() if p.grad is not None]
    assert all(p.grad.isfinite().all() for p in trained)
    assert any(p.grad.abs().sum() > 0 for p in trained)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_without_one_sequence_of_tokens_is_refused(family: str) -> None:
    name, size = REFUSED[family]
    with pytest.raises(ConfigError, match=f"timm/{name} gives several feature maps"):
        encoder(name, {}, size)


@pytest.mark.parametrize("family", ["beit", "convnext", "deit", "efficientnet", "eva", "resnet"])
def test_images_need_not_be_square(family: str) -> None:
    name, args, _ = SMALL[family]
    tower = encoder(name, args, (64, 96))
    tokens = tower(torch.randn(1, 3, 64, 96))
    rows, columns = tower.grid
    assert rows * 3 == columns * 2
    assert tokens.shape[1] == tower.num_prefix_tokens + rows * columns


@pytest.mark.parametrize("model_name", ["blip_pretrain", "clip"])
@pytest.mark.parametrize("family", ["convnext", "deit", "eva"])
def test_models_train_on_images_that_are_not_square(model_name: str, family: str) -> None:
    name, args, _ = SMALL[family]
    spec = {"name": f"timm/{name}", **args}
    changes = {"vision": spec, "image_size": [64, 96]}
    model: Any
    model, vis_processors, _ = load_model_and_preprocess(model_name, "tiny", **changes)
    picture = Image.new("RGB", (50, 80), "red")
    image = torch.stack([vis_processors[mode](picture) for mode in ("train", "eval")])
    assert image.shape == (2, 3, 64, 96)
    samples = {"image": image, "text_input": ["a red square", "a cross"]}
    model({**samples, "image_id": torch.tensor([0, 1])}).loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.visual_encoder.parameters())


def test_weights_of_square_images_load_into_a_model_of_wide_ones(tmp_path: Path) -> None:
    square: Any = create_model("blip_caption", "tiny")
    save_weights(square, tmp_path / "square.safetensors")
    wide: Any = create_model("blip_caption", "tiny", image_size=(64, 128))
    load_weights(wide, tmp_path / "square.safetensors")
    rows, columns = wide.visual_encoder.grid
    assert (rows, columns) == (4, 8)
    positions = square.visual_encoder.pos_embed
    expected = vision.interpolate_pos_embed(positions, 1 + 32, grid=(4, 8))
    assert torch.equal(wide.visual_encoder.pos_embed, expected)


@pytest.mark.parametrize("family", ["convnext", "deit", "resnet", "swin_transformer"])
def test_a_tower_is_one_graph(family: str) -> None:
    name, args, size = SMALL[family]
    tower = encoder(name, args, size).eval()
    image = torch.randn(1, 3, size, size)
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(tower, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(image), tower(image))


def test_one_flag_takes_timms_released_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_answers: None
) -> None:
    released = timm.create_model("vit_base_patch16_224", **VIT)
    for parameter in released.parameters():
        nn.init.normal_(parameter)
    save_file(released.state_dict(), tmp_path / "released.safetensors")
    create = timm.create_model

    def from_here(name: str, pretrained: bool = False, **args: Any) -> Any:
        if pretrained:  # timm's own way to name a file in place of the one on its hub
            args["pretrained_cfg_overlay"] = {"file": str(tmp_path / "released.safetensors")}
        return create(name, pretrained=pretrained, **args)

    monkeypatch.setattr(timm, "create_model", from_here)
    vision = {"name": "timm/vit_base_patch16_224", **VIT}
    fresh: Any = create_model("blip_caption", "tiny", vision=vision)
    model: Any = create_model("blip_caption", "tiny", vision={**vision, "pretrained": True})
    weight = released.blocks[0].attn.qkv.weight
    assert torch.equal(model.visual_encoder.blocks[0].attn.qkv.weight, weight)
    assert not torch.equal(fresh.visual_encoder.blocks[0].attn.qkv.weight, weight)
    # 14 x 14 positions, resampled to the 4 x 4 of these images.
    assert model.visual_encoder.pos_embed.shape == (1, 1 + 16, 32)
