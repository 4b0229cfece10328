"""The contracts between the parts, as Protocols with tensor shapes.

Dim letters, here and everywhere: B batch, H W image, N image tokens, T text tokens, D width,
E joint embedding, V vocabulary, Q queue length, K candidates per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from lavis_lite.modules.output import Samples

if TYPE_CHECKING:
    from lavis_lite.modules.text.text_batch import TextBatch


class Evaluation(NamedTuple):
    """The result of a metric.

    Args:
        metrics: values by name.
        predictions: the predictions behind them, JSON rows.
        submission: the predictions in the format of the dataset's evaluation server (JSON).
        missing: values that could not be computed here, with the reason.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    submission: object = None
    missing: dict[str, str] = {}


@runtime_checkable
class VisionEncoder(Protocol):
    """An encoder of images; ``grid``, ``num_prefix_tokens``, ``pool`` are optional (vision.py)."""

    width: int

    def __call__(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, N, D)."""
        ...


class EncodesImage(Protocol):
    """A model whose images become tokens."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, N, D)."""
        ...


class Embeds(EncodesImage, Protocol):
    """A model with a joint space of images and texts; all embeddings unit length, fp32."""

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        """Map B texts to states (B, T, D)."""
        ...

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """Map image tokens (B, N, D) to embeddings (B, E)."""
        ...

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """Map text states (B, T, D) to embeddings (B, E)."""
        ...


class Matches(EncodesImage, Protocol):
    """A model that tells whether a text matches an image."""

    def match(self, image_tokens: Tensor, text: list[str] | TextBatch) -> Tensor:
        """Return logits (B, 2), no match and match, of image tokens (B, N, D) and B texts."""
        ...

    def rank(self, image_tokens: Tensor, texts: list[list[str]] | TextBatch) -> Tensor:
        """Return match logits (B, K) of tokens (B, N, D) and K texts per image, image-major."""
        ...


class Generates(Protocol):
    """A model that writes texts about images."""

    def generate(self, samples: Samples, **options: object) -> list[str]:
        """Return B * num_captions texts, image-major, for ``samples["image"]`` (B, 3, H, W)."""
        ...


class Answers(Protocol):
    """A model that answers questions about images."""

    def predict_answers(self, samples: Samples, **options: object) -> list[str]:
        """Return B answers for ``samples["image"]`` (B, 3, H, W) and B ``text_input`` questions."""
        ...


class Classifies(Protocol):
    """A model that tells the class of an image, or of several, with a text."""

    def predict(self, samples: Samples) -> dict[str, Any]:
        """Return ``predictions``, logits (B, C), and ``targets``, their labels or None."""
        ...


class Localizes(Protocol):
    """A model that localizes a text in an image."""

    def localize(self, image: Tensor, texts: list[str]) -> Tensor:
        """Return the relevance (B, rows, columns), at least 0, of each patch to B texts."""
        ...


class RowDataset(Protocol):
    """Map-style rows; see the contract of the kind ``dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class EvaluationData(Protocol):
    """A dataset with its processors, as a metric reads it."""

    dataset: RowDataset

    def batches(self, indices: Sequence[int] | None = None) -> Iterator[Samples]:
        """Yield processed batches of the given rows (all by default), each once, in order."""
        ...


class Context(Protocol):
    """The part of a runner that a metric may use."""

    device: torch.device
    seed: int
    autocast: Callable[[], AbstractContextManager[object]]


class Metric(Protocol):
    """See the contract of the kind ``metric``."""

    requires: tuple[str, ...]

    def evaluate(self, model: Any, data: EvaluationData, runner: Context) -> Evaluation: ...
