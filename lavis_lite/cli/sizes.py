"""The size of a part and the cost of its forward pass."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import height_width
from lavis_lite.errors import DownloadError
from lavis_lite.models import zoo
from lavis_lite.modules.layers.flops import counted
from lavis_lite.modules.text.text_batch import ADDED, SPECIAL
from lavis_lite.registry import cards
from lavis_lite.registry.component import NESTED_KINDS

VOCABULARY, WIDTH = 30524, 768  # of a text backbone that is built by itself: BERT's and BLIP's


def multiply_adds(module: nn.Module, *inputs: Tensor) -> int:
    """Return the multiply-adds of ``module(*inputs)``: of its matrix products and convolutions.

    Args:
        module: put into evaluation mode; it runs once.
        inputs: tensors on its device, which may be ``meta``.
    """
    module.eval()
    with torch.no_grad():
        return counted(lambda: module(*inputs))[1] // 2


def of_tower(kind: str, name: str) -> str:
    """Parameters and multiply-adds of a vision encoder or text backbone with its default arguments.

    Images are as large as the tower's default, texts 32 tokens.
    """
    if kind == "vision_encoder":
        tower = registry.build(kind, {"name": name})
        default = registry.entry(kind, name).parameters.get("image_size")
        side = default.default if default and isinstance(default.default, int) else 224
        work = multiply_adds(tower, torch.zeros(1, 3, side, side))
        return f"{_spell(tower, work)} for an image of {side} x {side}"
    runtime = {"vocab_size": VOCABULARY, "encoder_width": WIDTH}
    tower = registry.build(kind, {"name": name}, **runtime)
    work = multiply_adds(tower, torch.ones(1, 32, dtype=torch.long))
    return f"{_spell(tower, work)} for a text of 32 tokens"


def of_model(name: str, type: str) -> str:
    """Parameters of a model, built without storage, and the multiply-adds of its image tower.

    Raises:
        DownloadError: its tokenizer would have to be fetched first, and no zoo.yaml says how many
            tokens it knows.
    """
    model: Any = _without_storage(name, type)
    vision, size = cards.preset(name, type).get("vision"), getattr(model, "image_size", None)
    if vision is None or size is None:
        return _parameters(model)
    height, width = height_width(size)
    with torch.device("meta"):  # a ViT of a billion weights has a size too
        tower = registry.build("vision_encoder", _fresh(vision), image_size=size)
        work = multiply_adds(tower, torch.zeros(1, 3, height, width))
    return f"{_spell(model, work)} to encode an image of {height} x {width}"


def _fresh(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component without the weights that it starts from, whose size is the same."""
    return {**spec, "pretrained": False} if spec.get("pretrained") else dict(spec)


def _without_storage(name: str, type: str) -> nn.Module:
    parts = cards.preset(name, type)
    fresh: dict[str, Any] = {key: _fresh(parts[key]) for key in NESTED_KINDS if key in parts}
    with _no_fetching(), torch.device("meta"):
        try:
            return zoo.create_model(name, type, **fresh)
        except DownloadError:
            source = parts.get("tokenizer")
            size = cards.vocabulary_size(str(source))
            if size is None:
                raise
        with tempfile.TemporaryDirectory() as folder:
            vocabulary = Path(folder) / "vocab.txt"
            # BLIP's own two tokens are among those of a tokenizer to which nothing is added.
            own = (*SPECIAL, *(ADDED if str(source).startswith("hf/") else ()))
            numbered = (f"token{number}" for number in range(size - len(own)))
            vocabulary.write_text("\n".join((*own, *numbered)))
            return zoo.create_model(name, type, tokenizer=str(vocabulary), **fresh)


@contextmanager
def _no_fetching() -> Iterator[None]:
    before = os.environ.get("LAVIS_LITE_OFFLINE")
    os.environ["LAVIS_LITE_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LAVIS_LITE_OFFLINE"]
        else:
            os.environ["LAVIS_LITE_OFFLINE"] = before


def _spell(module: nn.Module, work: int) -> str:
    return f"{_parameters(module)}, {work / 1e9:.3g} G multiply-adds"


def _parameters(module: nn.Module) -> str:
    total = sum(p.numel() for p in module.parameters())
    return f"{total / 1e6:.3g} M parameters"
