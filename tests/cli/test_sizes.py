"""Parameters and multiply-adds, and what `lavis-lite info` says of them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from lavis_lite.cli import info, sizes
from lavis_lite.cli.sizes import ATTENTION, Call, count
from lavis_lite.errors import DownloadError
from lavis_lite.models import zoo

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64, "num_classes": 0}


def vit(fused: bool) -> nn.Module:
    timm.layers.set_fused_attn(fused)
    try:
        return timm.create_model("vit_base_patch16_224", **SMALL)
    finally:
        timm.layers.set_fused_attn(True)


def test_fused_attention_counts_as_much_as_its_matrix_products() -> None:
    image = torch.zeros(1, 3, 64, 64)
    fused, plain = count(vit(True), image), count(vit(False), image)
    assert ATTENTION not in fused.uncounted
    assert fused.multiply_adds == plain.multiply_adds
    # 17 tokens in 2 layers: queries with keys, and weights with values
    without = count(nn.Sequential(vit(True).patch_embed), image).multiply_adds
    assert fused.multiply_adds - without > 2 * 2 * 17 * 17 * 32


def test_a_linear_layer_is_counted_as_by_hand() -> None:
    layer = nn.Linear(3, 5)
    assert count(layer, torch.zeros(7, 3)).multiply_adds == 7 * 3 * 5
    assert count(Call(layer, "forward"), torch.zeros(7, 3)).multiply_adds == 7 * 3 * 5


def test_info_of_a_tower_says_how_large_it_is() -> None:
    line = info.about("timm/test_vit").splitlines()[1]
    assert line == "0.312 M parameters, 0.0887 G multiply-adds for an image of 224 x 224"
    assert "M parameters" in sizes.of_tower("text_backbone", "med")


def test_info_of_a_model_says_how_large_its_type_is() -> None:
    lines = info.about("blip_caption.tiny").splitlines()
    assert lines[1].startswith("tiny: 0.")
    assert lines[1].endswith("G multiply-adds to encode an image of 64 x 64")


@pytest.mark.parametrize(
    ("type", "millions"),
    [
        ("clip.ViT-B-32", "151"),
        ("clip.RN50", "102"),
        ("siglip.So400m-14", "878"),
        ("blip_caption.base_coco", "224"),
    ],
)
def test_a_published_type_has_a_size_without_the_files_of_its_tokenizer(
    type: str, millions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*args: Any, **kwargs: Any) -> Any:
        raise DownloadError("not here")

    monkeypatch.setattr("lavis_lite.modules.text.hf_tokenizer._load", fetch)
    monkeypatch.setattr("lavis_lite.modules.text.hub_files.from_hub", fetch)
    name, _, chosen = type.partition(".")
    assert sizes._parameters(sizes._without_storage(name, chosen)) == f"{millions} M parameters"
    monkeypatch.setattr(zoo, "vocabulary_size", lambda tokenizer: None)
    with pytest.raises(DownloadError):
        sizes._without_storage(name, chosen)


def test_info_of_what_cannot_be_built_says_why() -> None:
    assert info.about("timm/efficientvim_m1").splitlines()[1] == (
        "cannot be built here: timm/efficientvim_m1 gives several feature maps, not one sequence "
        "of tokens"
    )


@pytest.mark.parametrize("name", ["timm/*", "itc"])
def test_info_of_what_is_no_tower_says_nothing_of_sizes(name: str) -> None:
    assert "multiply-adds" not in info.about(name)
