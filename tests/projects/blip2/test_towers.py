"""The vision towers of BLIP-2 against what the published code computes, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import save_weights
from lavis_lite.errors import CheckpointError, ConfigError
from lavis_lite.projects.blip2.towers import VisionNorm, build_towers, encode_image

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "blip2_tiny.json").read_text())
TINY = {"embed_dim": 48, "depth": 3, "num_heads": 4, "final_norm": False}
EVA = {"name": "timm/eva_giant_patch14_clip_224", "mlp_ratio": 4.3637, **TINY}
CLIP = {"name": "timm/vit_large_patch14_clip_quickgelu_224", **TINY}
WHOLE = {  # the published sizes
    "E": ({"name": EVA["name"], "depth": 39, "final_norm": False}, 39),
    "K": ({"name": CLIP["name"], "depth": 23, "final_norm": False}, 23),
}
Weights = Callable[[dict[str, list[int]], dict[str, str]], dict[str, Tensor]]


def images(count: int, seed: int, side: int = 56) -> Tensor:
    numbers = np.random.Generator(np.random.PCG64(seed)).standard_normal((count, 3, side, side))
    return torch.from_numpy(numbers.astype(np.float32))


def tower_file(entry: str, weights: Weights, path: Path) -> str:
    """The tower of a golden entry as its published file holds it, without a prefix."""
    state = weights(GOLDEN[entry]["layout"], GOLDEN[entry]["alias"])
    prefix = "visual_encoder."
    torch.save({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, path)
    return str(path)


@pytest.mark.parametrize(("entry", "spec"), [("eva", EVA), ("clip", CLIP)])
def test_towers_from_their_published_files_give_the_published_tokens(
    entry: str, spec: dict[str, Any], golden_weights: Weights, tmp_path: Path
) -> None:
    file = tower_file(entry, golden_weights, tmp_path / "tower.pth")
    tower = registry.build("vision_encoder", {**spec, "pretrained": file}, image_size=56).eval()
    recorded = GOLDEN[entry]
    with torch.no_grad():
        tokens = tower(images(2, recorded["image_seed"]))
    assert list(tokens.shape) == recorded["vit_shape"]
    for got, wanted in [(tokens[0, 0], "vit_cls_0"), (tokens[1, -1], "vit_last_1")]:
        torch.testing.assert_close(got, torch.tensor(recorded[wanted]), rtol=2e-4, atol=2e-4)
    assert tokens.abs().mean().item() == pytest.approx(recorded["vit_abs"], rel=2e-4)


def test_a_frozen_tower_and_the_norm_behind_it_give_the_published_tokens(
    golden_weights: Weights, tmp_path: Path
) -> None:
    file = tower_file("eva", golden_weights, tmp_path / "tower.pth")
    model = nn.Module()
    model.visual_encoder, model.ln_vision = build_towers({**EVA, "pretrained": file}, 56, True)
    state = golden_weights(GOLDEN["eva"]["layout"], GOLDEN["eva"]["alias"])
    load_state(model.ln_vision, {k: state[f"ln_vision.{k}"] for k in ("weight", "bias")})
    model.train()
    assert not model.visual_encoder.training
    tokens = encode_image(model, images(2, GOLDEN["eva"]["image_seed"]))  # type: ignore[arg-type]
    wanted = torch.tensor(GOLDEN["eva"]["ln_vision_cls_0"])
    torch.testing.assert_close(tokens[0, 0].detach(), wanted, rtol=2e-4, atol=2e-4)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ["ln_vision.weight", "ln_vision.bias"]
    tokens.square().mean().backward()
    assert model.ln_vision.weight.grad is not None


@pytest.mark.parametrize(
    ("entry", "spec"),
    [("eva", {**EVA, "antialias": False}), ("clip", {**CLIP, "align_corners": True})],
)
def test_positions_are_resampled_to_larger_images_as_published(
    entry: str, spec: dict[str, Any], golden_weights: Weights, tmp_path: Path
) -> None:
    file = tower_file(entry, golden_weights, tmp_path / "tower.pth")
    tower = registry.build("vision_encoder", {**spec, "pretrained": file}, image_size=84)
    got = tower.pos_embed[0, :8, 0].detach()
    torch.testing.assert_close(
        got, torch.tensor(GOLDEN["interpolated"][entry]), rtol=1e-6, atol=1e-6
    )


def published_tower(letter: str) -> dict[str, Tensor]:
    """The tensors of a published tower's file, without storage."""
    found = {}
    depth = WHOLE[letter][1]
    for line in Path(__file__).with_name("published_layouts.tsv").read_text().splitlines():
        key, _, rest = line.partition("\t")
        shape, _, files = rest.partition("\t")
        if files == letter:
            for number in range(depth if "*" in key else 1):
                dims = [int(dim) for dim in shape.split()]
                found[key.replace("*", str(number))] = torch.empty(dims, device="meta")
    return found


@pytest.mark.parametrize(("letter", "count", "millions"), [("E", 511, 985.9), ("K", 281, 290.6)])
def test_the_whole_published_files_fit_their_towers_tensor_for_tensor(
    letter: str, count: int, millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = published_tower(letter)
    assert len(file) == count
    monkeypatch.setattr("lavis_lite.modules.timm_weights.read_weights", lambda source: file)
    with torch.device("meta"):
        spec = {**WHOLE[letter][0], "pretrained": "published.pth"}
        tower = registry.build("vision_encoder", spec, image_size=224)
    assert sum(p.numel() for p in tower.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_tower_that_stops_early_leaves_the_end_of_a_whole_file_out(tmp_path: Path) -> None:
    whole = registry.build("vision_encoder", {**EVA, "final_norm": True}, image_size=56)
    save_weights(whole, tmp_path / "whole.safetensors")
    spec = {**EVA, "depth": 2, "pretrained": str(tmp_path / "whole.safetensors")}
    short = registry.build("vision_encoder", spec, image_size=56).eval()
    image = images(1, 3)
    with torch.no_grad():
        inner = whole.eval().forward_intermediates(image, indices=[1], return_prefix_tokens=True)
        patches, prefix = inner[1][0]
        wanted = torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)
        torch.testing.assert_close(short(image), wanted)
    deeper = {**spec, "depth": 4}  # a file with fewer blocks is no start
    with pytest.raises(CheckpointError, match="missing"):
        registry.build("vision_encoder", deeper, image_size=56)


def test_a_tower_without_such_a_norm_is_refused_with_the_key() -> None:
    with pytest.raises(ConfigError, match="final_norm"):
        registry.build("vision_encoder", {"name": "timm/test_convnext", "final_norm": False})


def test_the_norm_computes_in_fp32_and_gives_the_dtype_that_it_got() -> None:
    norm = VisionNorm(8)
    tokens = (1e4 * torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))).half()
    wanted = nn.functional.layer_norm(tokens.float(), (8,), eps=1e-5)
    got = norm(tokens)
    assert got.dtype is torch.float16
    torch.testing.assert_close(got.float(), wanted, rtol=0, atol=2e-3)
