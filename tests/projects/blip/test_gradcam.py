"""Grad-CAM over cross-attention: its numbers, any heads and grid, nothing left behind; overlays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bench_models import CAPTIONS, bench_model
from PIL import Image
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.errors import ConfigError
from lavis_lite.models.gradcam import compute_gradcam
from lavis_lite.models.heatmap import getAttMap, overlay, relevance_map
from lavis_lite.modules.layers.compile import compile_towers

TEXTS = [CAPTIONS[0], CAPTIONS[1], CAPTIONS[4]]


def matcher(**overrides: Any) -> Any:
    model = create_model("blip_image_text_matching", "tiny", **overrides).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 2 and "proj" not in key:
                parameter.mul_(5)  # so that patches differ
    return model


def by_hand(model: Any, image: Tensor, texts: list[str], block: int) -> tuple[Tensor, Tensor]:
    """Attention spelled out, its gradient kept by autograd: (B, T, rows, columns), logits."""
    attention = model.text_encoder.encoder.layer[block].crossattention
    kept = []

    def spelled_out(x: Tensor, source: Any, mask: Any = None, padding: Any = None) -> Tensor:
        num_heads = source.key.shape[1]
        query = attention.self.query(x).unflatten(-1, (num_heads, -1)).transpose(1, 2)
        scores = query @ source.key.transpose(-1, -2) / query.shape[-1] ** 0.5
        weights = scores.softmax(-1)
        weights.retain_grad()
        kept.append(weights)
        return attention.output((weights @ source.value).transpose(1, 2).flatten(2), x)

    attention.forward = spelled_out
    try:
        kv = model.text_tower.project(model.encode_image(image))
        logits = model.judge(model.read(kv, model.tokenize(texts))[:, 0])
        logits[:, 1].sum().backward()
    finally:
        del attention.forward
    (weights,) = kept
    maps = (weights * weights.grad.clamp(min=0)).mean(1)[..., 1:]
    side = round(maps.shape[-1] ** 0.5)
    maps = maps * model.tokenize(texts).mask[:, :, None]
    return maps.unflatten(-1, (side, side)).detach(), logits.detach()


@pytest.mark.parametrize("block", [0, 1, 2])
def test_the_maps_are_attention_times_its_positive_gradient(block: int) -> None:
    model, image = matcher(), torch.randn(3, 3, 64, 64)
    expected, expected_logits = by_hand(model, image, TEXTS, block)
    maps, logits = compute_gradcam(model, image, TEXTS, block_num=block)
    torch.testing.assert_close(logits, expected_logits)
    assert expected.abs().max() > 0
    for row, text in enumerate(TEXTS):
        num_words = len(model.tokenizer(text).input_ids) - 2
        torch.testing.assert_close(maps[row][0], expected[row, 0])
        torch.testing.assert_close(maps[row][1], expected[row, 1 : 1 + num_words].mean(0))
        torch.testing.assert_close(maps[row][2:], expected[row, 1:])
        assert not maps[row][2 + num_words + 1 :].any()  # padding


@pytest.mark.parametrize(("heads", "size", "grid"), [(2, 64, (4, 4)), (8, 96, (6, 6))])
def test_any_number_of_heads_and_any_grid(heads: int, size: int, grid: tuple[int, int]) -> None:
    model = matcher(text={"num_heads": heads}, image_size=size)
    maps, logits = compute_gradcam(model, torch.randn(2, 3, size, size), TEXTS[:2])
    tokens = model.tokenize(TEXTS[:2]).ids.shape[1]
    assert [m.shape for m in maps] == [(1 + tokens, *grid)] * 2
    assert logits.shape == (2, 2)
    assert all((m >= 0).all() for m in maps)


def test_it_is_called_as_lavis_s_users_call_it() -> None:
    model, image = matcher(), torch.randn(1, 3, 64, 64)
    text = "a small blue circle"
    tokens = model.tokenizer(text, return_tensors="pt")
    maps, logits = compute_gradcam(model, image, text, tokens, block_num=2)
    again, _ = compute_gradcam(model, image, [text], block_num=2)
    torch.testing.assert_close(maps[0], again[0])
    assert logits.softmax(1).shape == (1, 2)
    default, _ = compute_gradcam(model, image, text)
    assert default[0].equal(compute_gradcam(model, image, text, block_num=1)[0][0])  # of 3 layers


def test_nothing_is_left_behind_in_the_model() -> None:
    model, image = matcher().train(), torch.randn(1, 3, 64, 64)
    model.requires_grad_(False)  # nor is anything asked of the weights
    compute_gradcam(model, image, "a cross")
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    with torch.no_grad():
        compute_gradcam(model, image, "a cross")


def test_maps_are_fp32_under_autocast() -> None:
    model, image = matcher(), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        maps, logits = compute_gradcam(model, image, TEXTS[:2])
    assert maps[0].dtype == logits.dtype == torch.float32


def test_a_map_does_not_depend_on_the_batch() -> None:
    model, image = matcher(), torch.randn(3, 3, 64, 64)
    together = model.localize(image, TEXTS)
    alone = [model.localize(x[None], [t])[0] for x, t in zip(image, TEXTS, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-6, rtol=1e-4)


def test_what_cannot_be_located_says_why() -> None:
    model, image = matcher(), torch.randn(1, 3, 64, 64)
    with pytest.raises(ConfigError, match=r"block_num: 3; .* in its layers 0 to 2"):
        compute_gradcam(model, image, "a cross", block_num=3)
    with pytest.raises(ConfigError, match="2 texts for 1 images"):
        compute_gradcam(model, image, ["a cross", "a star"])
    blind = bench_model("blip_image_text_matching")
    with pytest.raises(ConfigError, match="no `grid`"):
        compute_gradcam(blind, torch.randn(1, 3, 8, 8), "a cross")


# ---- the picture


def test_a_map_is_laid_over_the_picture_where_it_is_relevant() -> None:
    picture = Image.new("RGB", (60, 40), (10, 200, 30))
    relevance = torch.zeros(4, 6)
    relevance[0, 5] = 3.0  # top right
    pixels = np.asarray(overlay(picture, relevance))
    assert pixels.shape == (40, 60, 3)
    assert np.abs(pixels[-1, 0].astype(int) - (10, 200, 30)).max() <= 3  # as it was
    assert np.abs(pixels[2, -3].astype(int) - (10, 200, 30)).max() > 60
    assert relevance[0, 5] == 3.0  # what is given is not changed


def test_a_map_without_relevance_leaves_the_picture_alone() -> None:
    picture = Image.new("L", (20, 30), 128)
    for nothing in (torch.zeros(2, 2), torch.full((2, 2), 5.0)):
        assert set(np.asarray(overlay(picture, nothing)).ravel()) == {128}


def test_a_blur_keeps_range_and_place() -> None:
    relevance = np.zeros((8, 8))
    relevance[2, 3] = 1
    black = np.zeros((64, 64, 3))
    blurred = relevance_map(black, relevance, blur=True, overlap=True)
    sharp = relevance_map(black, relevance, blur=False, overlap=True)
    for picture in (blurred, sharp):
        assert picture.min() >= 0
        assert picture.max() <= 1
        row, column = np.unravel_index(picture.sum(2).argmax(), (64, 64))
        assert (row // 8, column // 8) == (2, 3)
    assert not np.allclose(blurred, sharp)


def test_the_colours_come_alone_when_asked_for() -> None:
    white = np.ones((16, 16, 3))
    colours = getAttMap(white, torch.eye(2), blur=False, overlap=False)
    assert colours[0, -1] == pytest.approx((0, 0, 0.5), abs=0.01)  # the least, dark blue
    assert colours[0, 0] == pytest.approx((0.5, 0, 0), abs=0.01)  # the most, dark red


def test_the_maps_of_a_compiled_model_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: real(self, backend="eager", **how)
    )
    torch.compiler.reset()
    model, image = matcher(), torch.randn(3, 3, 64, 64)
    expected = compute_gradcam(model, image, TEXTS)
    compile_towers(model)
    with torch.enable_grad():  # code without hooks, for a pass such as Grad-CAM's
        model.read(model.text_tower.project(model.encode_image(image)), model.tokenize(TEXTS))
    found = compute_gradcam(model, image, TEXTS)
    torch.compiler.reset()
    for one, other in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(found[1], expected[1])
