"""The contracts between the parts, as Protocols with tensor shapes.

Dim letters, here and everywhere: B batch, H W image, N image tokens, T text tokens, D width,
E joint embedding, V vocabulary, Q queue length, K candidates per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lavis_lite.modules.output import Samples

if TYPE_CHECKING:
    from lavis_lite.modules.text.text_batch import TextBatch


class Account(Protocol):
    """How many samples a figure is of, and why not of the others: ``lavis_lite.data.counts``."""

    @property
    def seen(self) -> int:
        """All samples that there are."""
        ...

    @property
    def used(self) -> int:
        """The samples that the figure is of."""
        ...

    @property
    def set_aside(self) -> Mapping[str, int]:
        """Reason -> samples that could not be judged: unreadable, or the model gave NaN."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """Rule -> samples that have nothing to judge, such as an empty text."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return the account as plain values, for JSON."""
        ...

    def spell(self, unit: str) -> str:
        """Return the account in words, by what the samples are (``images``)."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What a metric found.

    Args:
        metrics: figures by name.
        predictions: what they come from, JSON rows.
        submission: the predictions as the evaluation server of the dataset takes them (JSON).
        missing: figures that could not be computed here, with the reason.
        counts: how many samples the figures are of, by what they are (``images``, ``texts``).

    It unpacks as the first four, which is all that there was before there were counts.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    submission: Any = None
    missing: dict[str, str] = field(default_factory=dict)
    counts: Mapping[str, Account] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.metrics, self.predictions, self.submission, self.missing))


@runtime_checkable
class VisionEncoder(Protocol):
    """Images to tokens; ``grid``, ``num_prefix_tokens`` and ``pool`` are optional (vision.py)."""

    width: int

    def __call__(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D)."""
        ...


class EncodesImage(Protocol):
    """A model whose images become tokens."""

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D)."""
        ...


class Embeds(EncodesImage, Protocol):
    """A model with a joint space of images and texts; all embeddings unit length, fp32."""

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        """B texts -> (B, T, D)."""
        ...

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E)."""
        ...

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, E)."""
        ...


class Matches(EncodesImage, Protocol):
    """A model that tells whether a text holds of an image."""

    def match(self, image_tokens: Tensor, text: list[str] | TextBatch) -> Tensor:
        """(B, N, D) and B texts -> (B, 2) logits: does not match, matches."""
        ...

    def rank(self, image_tokens: Tensor, texts: list[list[str]] | TextBatch) -> Tensor:
        """(B, N, D) and K texts per image (image-major rows) -> (B, K) logits of "matches"."""
        ...


class Generates(Protocol):
    """A model that writes texts about images."""

    def generate(self, samples: Samples, **options: Any) -> list[str]:
        """``samples["image"]`` (B, 3, H, W) -> B * num_captions texts, image-major."""
        ...


class Answers(Protocol):
    """A model that answers questions about images."""

    def predict_answers(self, samples: Samples, **options: Any) -> list[str]:
        """``samples["image"]`` (B, 3, H, W) and B questions in ``text_input`` -> B answers."""
        ...


class Classifies(Protocol):
    """A model that tells the class of an image, or of several, with a text."""

    def predict(self, samples: Samples) -> dict[str, Any]:
        """B samples -> ``predictions``, (B, C) logits, and ``targets``, their labels or None."""
        ...


class Localizes(Protocol):
    """A model that tells where in an image a text is found."""

    def localize(self, image: Tensor, texts: list[str]) -> Tensor:
        """(B, 3, H, W) and B texts -> (B, rows, columns) relevance of each patch, at least 0."""
        ...


class RowDataset(Protocol):
    """Map-style rows; see the contract of the kind ``dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class EvaluationData(Protocol):
    """A dataset with its processors: what a metric reads."""

    dataset: RowDataset

    def batches(self, indices: Sequence[int] | None = None) -> Iterator[Samples]:
        """Processed batches of the given rows (all by default), each once, in order."""
        ...


class Context(Protocol):
    """What a metric may ask of the runner that calls it."""

    device: torch.device
    seed: int
    autocast: Callable[[], AbstractContextManager[Any]]


class Metric(Protocol):
    """See the contract of the kind ``metric``."""

    requires: tuple[str, ...]

    def evaluate(self, model: Any, data: EvaluationData, runner: Context) -> Evaluation: ...
