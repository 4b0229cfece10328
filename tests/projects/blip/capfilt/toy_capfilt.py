"""A plug-in for CapFilt's tests: a captioner and a filter of one weight each, and small rows.

TOY_CAPFILT, if set, is a folder: ``computed`` gets a line for each captioned batch; if it holds
``kill_at``, the process kills itself when it captions the batch of that number, counted from 0.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.data.files.rows import Rows
from lavis_lite.errors import DataError

SIZE = 4
WORDS = ("a", "red", "green", "blue", "large", "small", "square", "circle")


@registry.register("model", "toy_captioner")
class ToyCaptioner(nn.Module):
    """Draws words by the seed alone."""

    image_size = SIZE

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.losses = nn.ModuleDict()

    def generate(
        self, samples: dict, num_captions: int = 1, length: int = 4, seeds: list[int] | None = None
    ) -> list[str]:
        assert seeds is not None
        commit_fault(len(seeds))
        return [
            " ".join(numpy.random.default_rng([seed, n]).choice(WORDS, length))
            for seed in seeds
            for n in range(num_captions)
        ]


@registry.register("model", "toy_filter")
class ToyFilter(nn.Module):
    """Scores depend on the mean of the image and the length of the text."""

    image_size = SIZE

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.losses = nn.ModuleDict()

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, 3)."""
        return image.mean((2, 3))[:, None]

    def match(self, image_tokens: Tensor, text: list[str]) -> Tensor:
        lengths = torch.tensor([float(len(one) % 5) for one in text])
        logit = self.scale * (image_tokens[:, 0, 0] + 0.4 * (lengths - 2))
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    def encode_text(self, text: list[str]) -> Tensor:
        """B texts -> (B, 1, 3)."""
        return torch.tensor([[[float(len(one) % n) for n in (2, 3, 5)]] for one in text])

    def image_features(self, tokens: Tensor) -> Tensor:
        return nn.functional.normalize(tokens[:, 0], dim=-1)

    text_features = image_features


@registry.register("model", "toy_blind")
class ToyBlind(nn.Module):
    """Can neither write nor judge."""


@registry.register("dataset", "toy_pairs")
class ToyPairs(Rows):
    """Coloured pictures with short texts; ``broken`` rows raise, ``silent`` ones have no text."""

    def __init__(
        self,
        size: int = 24,
        seed: int = 0,
        broken: list[int] | None = None,
        silent: list[int] | None = None,
        same_key: list[int] | None = None,
    ) -> None:
        self.name = "toy_pairs"
        self.size, self.seed = size, seed
        self.broken, self.silent = set(broken or ()), set(silent or ())
        self.same_key = set(same_key or ())

    def _count(self) -> int:
        return self.size

    def _annotation(self, number: int) -> dict:
        text = f"{WORDS[(number + self.seed) % 8]} thing " + "x" * (number % 4)
        key = f"pair-{0 if number in self.same_key else number}"
        text = "" if number in self.silent else text.strip()
        return {"text_input": text, "image_id": key, "key": key, "kind": f"kind{number % 2}"}

    def _row(self, number: int) -> dict:
        if number in self.broken:
            raise DataError("truncated image: for the test")
        colour = tuple((37 * number + 80 * channel) % 256 for channel in range(3))
        return {"image": Image.new("RGB", (SIZE, SIZE), colour), **self._annotation(number)}


def commit_fault(num_images: int) -> None:
    if folder := os.environ.get("TOY_CAPFILT"):
        with (Path(folder) / "computed").open("a") as file:
            file.write(f"{num_images}\n")
        kill_at = Path(folder) / "kill_at"
        computed = len((Path(folder) / "computed").read_text().splitlines())
        if kill_at.exists() and computed == int(kill_at.read_text()) + 1:
            os.kill(os.getpid(), signal.SIGKILL)
