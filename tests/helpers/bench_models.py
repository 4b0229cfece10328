"""Models for the losses' tests: bare feature towers, and BLIP's smallest over a toy encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import create_model, registry
from lavis_lite.models.base import unit

SIZE = 8


class FeatureTowers(nn.Module):
    """A model whose "images" and "texts" are features already; its momentum copy scales them."""

    def __init__(self, width: int, momentum: FeatureTowers | None = None) -> None:
        super().__init__()
        self.embed_width = width
        self.temp = nn.Parameter(torch.tensor(0.2))
        self.scale = nn.Parameter(torch.ones(width))
        self.momentum = momentum

    @property
    def temperature(self) -> Tensor:
        return self.temp

    def tokenize(self, texts: list[Tensor]) -> Tensor:
        return torch.stack(texts)

    def encode_image(self, image: Tensor) -> Tensor:
        return image

    def encode_text(self, text: Tensor) -> Tensor:
        return text

    def image_features(self, tokens: Tensor) -> Tensor:
        return unit(tokens * self.scale)

    def text_features(self, tokens: Tensor) -> Tensor:
        return unit(tokens * self.scale)


def feature_towers(width: int) -> FeatureTowers:
    """Towers with a momentum copy that sees features differently."""
    copy = FeatureTowers(width)
    with torch.no_grad():
        copy.scale.copy_(torch.linspace(0.5, 1.5, width))
    return FeatureTowers(width, copy)


def features(count: int, width: int, seed: int = 0, **extra: Any) -> dict[str, Any]:
    """Samples of ``FeatureTowers``."""
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, count, width, generator=generator)
    return {"image": image, "text_input": list(text), **extra}


class BenchPatches(nn.Module):
    """Ten lines of an encoder: four patches, a bias for each place."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.patches = nn.Conv2d(3, width, SIZE // 2, SIZE // 2)
        self.places = nn.Parameter(torch.randn(4, width))

    def forward(self, image: Tensor) -> Tensor:
        return self.patches(image).flatten(2).transpose(1, 2) + self.places


def bench_model(name: str, **overrides: Any) -> Any:
    """A tiny BLIP model over ``BenchPatches``, without dropout, its weights large enough to tell
    inputs apart; the same for every call."""
    if "bench_patches" not in registry.names("vision_encoder"):
        registry.register("vision_encoder", "bench_patches")(BenchPatches)
    torch.manual_seed(0)
    sizes = {"width": 32, "depth": 2, "num_heads": 2, "mlp_width": 64, "max_length": 64}
    model = create_model(
        name,
        "tiny",
        vision={"name": "bench_patches"},
        text={"name": "med", **sizes, "dropout": 0.0},
        image_size=SIZE,
        **overrides,
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 2 and not key.endswith("_proj.weight"):
                parameter.mul_(5)
    getattr(model, "reset_momentum", lambda: None)()
    return model


CAPTIONS = [
    "a red square",
    "a small blue circle above a large green triangle",
    "two crosses",
    "a yellow star left of a red star",
    "nothing",
    "a large purple circle",
    "three green squares in a row",
    "a blue cross below a red circle",
]


def batch(count: int, seed: int = 0, **extra: Any) -> dict[str, Any]:
    """Samples of a ``bench_model``: noise and captions of different length."""
    generator = torch.Generator().manual_seed(seed)
    texts = [CAPTIONS[i % len(CAPTIONS)] for i in range(count)]
    image = torch.randn(count, 3, SIZE, SIZE, generator=generator)
    return {"image": image, "text_input": texts, "image_id": torch.arange(count), **extra}
