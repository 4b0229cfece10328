"""Parameters and multiply-adds, and what `lavis-lite info` says of them."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from lavis_lite.cli import info, sizes
from lavis_lite.errors import DownloadError
from lavis_lite.registry import cards


def test_a_linear_layer_is_counted_as_by_hand() -> None:
    layer = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5))
    assert sizes.multiply_adds(layer, torch.zeros(7, 3)) == 7 * 3 * 5
    assert not layer.training
    assert sizes.multiply_adds(layer.to("meta"), torch.zeros(7, 3, device="meta")) == 7 * 3 * 5


def test_info_of_a_tower_says_how_large_it_is() -> None:
    line = info.about("timm/test_vit").splitlines()[1]
    assert line == "0.312 M parameters, 0.0879 G multiply-adds for an image of 224 x 224"
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

    monkeypatch.setattr("lavis_lite.modules.text.hf_tokenizer.load_hf_tokenizer", fetch)
    monkeypatch.setattr("lavis_lite.modules.text.hub_files.from_hub", fetch)
    name, _, chosen = type.partition(".")
    assert sizes._parameters(sizes._without_storage(name, chosen)) == f"{millions} M parameters"
    monkeypatch.setattr(cards, "vocabulary_size", lambda tokenizer: None)
    with pytest.raises(DownloadError):
        sizes._without_storage(name, chosen)


@pytest.mark.skipif(not timm.is_model("efficientvim_m1"), reason="this timm has no EfficientViM")
def test_info_of_what_cannot_be_built_says_why() -> None:
    assert info.about("timm/efficientvim_m1").splitlines()[1] == (
        "cannot be built here: timm/efficientvim_m1 gives several feature maps, not one sequence "
        "of tokens"
    )


@pytest.mark.parametrize("name", ["timm/*", "itc"])
def test_info_of_what_is_no_tower_says_nothing_of_sizes(name: str) -> None:
    assert "multiply-adds" not in info.about(name)
