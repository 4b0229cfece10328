"""Models with random weights, images and texts to measure with; nothing is fetched."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavis_lite import create_model
from lavis_lite.modules.text.load_tokenizer import PACKAGED

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BERT = 30522  # words in BERT's vocabulary


def build(name: str, type: str, vocab_size: int, **arguments: Any) -> Any:
    """A model with random weights and a vocabulary of a size that costs what BERT's does.

    Args:
        name: of the model.
        type: its type: a preset of sizes.
        vocab_size: tokens, without the two that BLIP adds.
        arguments: those of the model's builder that differ.
    """
    return create_model(name, type, tokenizer=str(vocabulary(vocab_size).name), **arguments)


@functools.cache
def vocabulary(size: int) -> tempfile.TemporaryDirectory[str]:
    """A folder with the words of the packaged vocabulary and made-up ones, ``size`` in all."""
    words = PACKAGED.read_text(encoding="utf-8").split("\n")
    words = [word for word in words if word][:size]
    words += [f"word{number}" for number in range(size - len(words))]
    folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "vocab.txt"
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def images(batch: int, side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(B, 3, side, side) of normal noise, as normalised photographs are spread."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, side, side, generator=generator).to(device, dtype)


def texts(count: int, shortest: int, longest: int, seed: int = 2) -> list[str]:
    """Texts of common words, each of a random number of them."""
    words = [
        word
        for word in PACKAGED.read_text(encoding="utf-8").split("\n")
        if word.isalpha() and len(word) > 2
    ]
    draw = random.Random(seed)
    return [" ".join(draw.choices(words, k=draw.randint(shortest, longest))) for _ in range(count)]
