"""Counts of operations, compared with arithmetic by hand, on the CPU and without storage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.modules.layers.flops import ATTENTION, counted
from lavis_lite.modules.layers.linear import Linear
from lavis_lite.modules.med.model import Med

devices = pytest.mark.parametrize("device", ["cpu", "meta"])


def of(run: Callable[[], object]) -> int:
    """Operations of a run."""
    return counted(run)[1]


def trained(run: Callable[[], Tensor]) -> int:
    """Operations of a run and of its gradients."""
    return of(lambda: run().float().sum().backward())


@devices
def test_a_product_and_its_gradients_are_three_products(device: str) -> None:
    left = torch.randn(4, 8, requires_grad=True, device=device)
    right = torch.randn(8, 16, requires_grad=True, device=device)
    assert of(lambda: left @ right) == 2 * 4 * 8 * 16
    assert trained(lambda: left @ right) == 3 * 2 * 4 * 8 * 16


def test_a_run_returns_what_it_returns() -> None:
    assert counted(lambda: "seen") == ("seen", 0)


@devices
@pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 3, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_multiplies_every_row_by_its_matrix(
    shape: tuple[int, ...], bias: bool, device: str
) -> None:
    layer = nn.Linear(8, 5, bias=bias, device=device)
    x = torch.randn(shape, device=device)
    rows = x.numel() // 8
    assert of(lambda: layer(x)) == 2 * rows * 8 * 5
    with torch.inference_mode():
        assert of(lambda: layer(x)) == 2 * rows * 8 * 5
    assert trained(lambda: layer(x)) == 2 * (2 * rows * 8 * 5)  # no gradient of x is asked for


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_a_product_is_counted_whichever_library_computes_it(rows: int) -> None:
    layer = Linear(32, 64).eval()
    x = torch.randn(rows, 32)
    with torch.no_grad():
        assert of(lambda: layer(x)) == 2 * rows * 32 * 64


@devices
def test_products_with_vectors_count(device: str) -> None:
    matrix, vector = torch.randn(3, 8, device=device), torch.randn(8, device=device)
    assert of(lambda: matrix @ vector) == 2 * 3 * 8
    assert of(lambda: vector @ vector) == 2 * 8
    assert of(lambda: torch.addmv(torch.randn(3, device=device), matrix, vector)) == 2 * 3 * 8


@devices
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_uses_every_weight_at_every_position(groups: int, device: str) -> None:
    layer = nn.Conv2d(4, 8, 3, groups=groups, stride=2, padding=1, device=device)
    x = torch.randn(5, 4, 9, 7, requires_grad=True, device=device)
    once = 2 * 5 * (5 * 4) * (8 * (4 // groups) * 3 * 3)
    assert of(lambda: layer(x)) == once
    assert trained(lambda: layer(x)) == 3 * once
    assert trained(lambda: layer(x.detach())) == 2 * once


@devices
def test_a_transposed_convolution_uses_every_weight_at_every_position_of_its_input(
    device: str,
) -> None:
    layer = nn.ConvTranspose2d(4, 6, 2, stride=2, device=device)
    x = torch.randn(5, 4, 3, 3, requires_grad=True, device=device)
    once = 2 * 5 * (3 * 3) * (4 * 6 * 2 * 2)
    assert of(lambda: layer(x)) == once
    assert trained(lambda: layer(x)) == 3 * once


MASKS: dict[str, Callable[[str], Tensor | None]] = {
    "none": lambda device: None,
    "yes or no": lambda device: torch.ones(2, 1, 16, 12, dtype=torch.bool, device=device),
    "added": lambda device: torch.zeros(2, 1, 16, 12, device=device),
    "learnt": lambda device: torch.zeros(2, 1, 16, 12, device=device, requires_grad=True),
}


@devices
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("value_width", [8, 6])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_is_two_products_and_its_gradients_are_four(
    mask: str, value_width: int, dropout: float, device: str
) -> None:
    def leaf(tokens: int, width: int) -> Tensor:
        return torch.randn(2, 3, tokens, width, device=device, requires_grad=True)

    def attend() -> Tensor:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=MASKS[mask](device), dropout_p=dropout
        )

    query, key, value = leaf(16, 8), leaf(12, 8), leaf(12, value_width)
    by_hand = 2 * (2 * 3) * 16 * 12 * (8 + value_width)
    assert trained(attend) == 3 * by_hand
    with torch.inference_mode():
        assert of(attend) == by_hand
    with torch.no_grad():
        assert of(attend) == by_hand


@devices
def test_attention_in_bf16_and_with_shared_heads_counts_every_query_head(device: str) -> None:
    query = torch.randn(2, 4, 16, 8, device=device, dtype=torch.bfloat16)
    key = torch.randn(2, 2, 12, 8, device=device, dtype=torch.bfloat16)
    found = of(lambda: F.scaled_dot_product_attention(query, key, key, enable_gqa=True))
    assert found == 2 * (2 * 4) * 16 * 12 * (8 + 8)


def test_every_kernel_of_attention_that_this_torch_has_is_known() -> None:
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    kernels = {name for name in names if name.startswith("aten::_scaled_dot_product_")}
    composed = {"aten::_scaled_dot_product_attention_math"}  # of products that are counted
    known = {f"aten::{name}" for name in ATTENTION}
    assert kernels
    assert kernels - composed <= known | {f"{name}_backward" for name in known}


@devices
def test_attention_and_encoder_layers_of_torch_are_counted_without_gradients_too(
    device: str,
) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, device=device).eval()
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, device=device).eval()
    x = torch.randn(3, 5, 8, device=device)
    by_hand = 4 * (2 * 3 * 5 * 8 * 8) + 2 * (2 * 3 * 5 * 5 * 8)
    with torch.no_grad():
        assert of(lambda: attention(x, x, x)) == by_hand
        assert of(lambda: layer(x)) == by_hand + 2 * (2 * 3 * 5 * 8 * 16)


@devices
@pytest.mark.parametrize("fused", [True, False])
def test_a_vision_transformer_counts_as_by_hand(fused: bool, device: str) -> None:
    width, depth, side = 32, 2, 64
    timm.layers.set_fused_attn(fused)
    try:
        with torch.device(device):
            vit = timm.create_model(
                "vit_base_patch16_224", embed_dim=width, depth=depth, num_heads=2, img_size=side,
                num_classes=0,
            )  # fmt: skip
    finally:
        timm.layers.set_fused_attn(True)
    images, patches = 3, (side // 16) ** 2
    tokens = patches + 1
    patching = images * patches * (3 * 16 * 16) * width
    layer = images * tokens * (3 + 1 + 4 + 4) * width * width + 2 * images * tokens**2 * width
    forward = 2 * (patching + depth * layer)
    x = torch.randn(images, 3, side, side, device=device)
    with torch.no_grad():
        assert of(lambda: vit(x)) == forward
    # the pixels need no gradient
    assert trained(lambda: vit(x)) == 3 * forward - 2 * patching


@devices
def test_a_med_that_looks_at_images_counts_as_by_hand(device: str) -> None:
    width, image_width, mlp, depth, texts, words, patches = 16, 12, 24, 2, 3, 7, 5
    with torch.device(device):
        med = Med(
            width=width, depth=depth, num_heads=2, mlp_width=mlp, vocab_size=50,
            encoder_width=image_width, max_length=20, dropout=0.0,
        )  # fmt: skip
        ids = torch.ones(texts, words, dtype=torch.long)
        image = torch.randn(texts, patches, image_width, requires_grad=True)
    looking = texts * patches * 2 * image_width * width
    own = texts * words * 4 * width * width + 2 * texts * words * words * width
    cross = texts * words * 2 * width * width + 2 * texts * words * patches * width
    layer = looking + own + cross + texts * words * 2 * width * mlp
    forward = 2 * depth * layer
    for mode in ("multimodal", "decoder"):
        run = lambda mode=mode: med(ids, mode=mode, image_kv=med.project(image))  # noqa: E731
        with torch.no_grad():
            assert of(run) == forward
        assert trained(run) == 3 * forward
