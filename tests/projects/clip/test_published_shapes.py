"""The published types have the shapes of the published models, tensor by tensor, on meta."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from lavis_lite import create_model
from lavis_lite.models import build_dual
from lavis_lite.projects.clip import config_check
from lavis_lite.projects.clip.names import renamed
from lavis_lite.registry import cards

# (width, MLP width, layers, heads) of a tower; its patch and image side where it sees.
Tower = tuple[int, int, int, int]
BASE, LARGE = (768, 3072, 12, 12), (1024, 4096, 24, 16)
SO400M = (1152, 4304, 27, 16)
CLIP_TEXT, CLIP_TEXT_LARGE = (512, 2048, 12, 8), (768, 3072, 12, 12)

# Facts: the config.json files of openai's and google's repositories on the hub.
CLIP: dict[str, tuple[Tower, int, int, Tower, int]] = {
    "ViT-B-32": (BASE, 32, 224, CLIP_TEXT, 512),
    "ViT-B-16": (BASE, 16, 224, CLIP_TEXT, 512),
    "ViT-L-14": (LARGE, 14, 224, CLIP_TEXT_LARGE, 768),
    "ViT-L-14-336": (LARGE, 14, 336, CLIP_TEXT_LARGE, 768),
}
SIGLIP: dict[str, tuple[Tower, int, int]] = {
    "B-16": (BASE, 16, 224),
    "L-16-384": (LARGE, 16, 384),
    "So400m-14": (SO400M, 14, 384),
    "siglip2-B-16-256": (BASE, 16, 256),
    "siglip2-B-16-384": (BASE, 16, 384),
    "siglip2-L-16-384": (LARGE, 16, 384),
    "siglip2-So400m-14-384": (SO400M, 14, 384),
}
PERCEPTION = ("PE-Core-B-16", "PE-Core-L-14-336", "PE-Core-S-16-384", "PE-Core-T-16-384")


def sizes(tower: Tower, **more: int) -> dict[str, int]:
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(keys, tower, strict=True)) | more


def clip_config(type: str) -> CLIPConfig:
    vision, patch, image, text, width = CLIP[type]
    return CLIPConfig(
        vision_config=sizes(vision, patch_size=patch, image_size=image),
        text_config=sizes(text, vocab_size=49408),
        projection_dim=width,
    )


def siglip_config(type: str) -> SiglipConfig:
    tower, patch, image = SIGLIP[type]
    return SiglipConfig(
        vision_config=sizes(tower, patch_size=patch, image_size=image),
        text_config=sizes(
            tower,
            vocab_size=256000 if type.startswith("siglip2") else 32000,
            max_position_embeddings=64,
        ),
    )


class Words:
    """Stands in for the published tokenizer, of which the shapes need the size alone."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def test_all_published_types_that_transformers_has_are_here() -> None:
    published = {
        (name, type)
        for name in ("clip", "siglip")
        for type, entry in cards.card(name)["types"].items()
        if str(entry.get("checkpoint")).startswith("hf://")
    }
    mine = {("clip", type) for type in CLIP} | {("siglip", type) for type in SIGLIP}
    others = {("clip", type) for type in ("RN50", *PERCEPTION)}  # transformers has none
    assert published - mine == others


@pytest.mark.parametrize(
    ("name", "type"), [*(("clip", type) for type in CLIP), *(("siglip", type) for type in SIGLIP)]
)
def test_a_type_has_the_tensors_heads_and_activations_of_the_published_model(
    name: str, type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = clip_config(type) if name == "clip" else siglip_config(type)
    words = Words(settings.text_config.vocab_size)
    monkeypatch.setattr(build_dual, "tokenizer_for", lambda *args: words)
    with torch.device("meta"):
        ours: Any = create_model(name, type)
        theirs = (CLIPModel if name == "clip" else SiglipModel)(settings)
    published = {key: value.shape for key, value in renamed(dict(theirs.state_dict())).items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == published
    assert not list(config_check.differences(ours, settings.to_dict(), config_check.DEFAULTS[name]))
    vision, text = settings.vision_config, settings.text_config
    assert ours.visual_encoder.blocks[0].attn.num_heads == vision.num_attention_heads
    assert ours.text_encoder.blocks[0].attn.num_heads == text.num_attention_heads
    assert ours.max_length == text.max_position_embeddings
