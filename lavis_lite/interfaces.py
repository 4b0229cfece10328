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

if TYPE_CHECKING:
    from lavis_lite.text.tokenizer import TextBatch

Samples = dict[str, Any]


class Evaluation(NamedTuple):
    """What a metric found.

    Args:
        metrics: figures by name.
        predictions: what they come from, JSON rows.
        submission: the predictions as the evaluation server of the dataset takes them (JSON).
        missing: figures that could not be computed here, with the reason.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    submission: Any = None
    missing: dict[str, str] = {}


class Named:
    """Values by name, as attributes or by key; one that was not computed is None.

    Args:
        values: name -> value.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._values.get(name)

    def __getitem__(self, name: str) -> Any:
        return self._values.get(name)

    def __repr__(self) -> str:
        return f"({', '.join(f'{name}={_brief(value)}' for name, value in self._values.items())})"

    def keys(self) -> list[str]:
        """The names of what was computed."""
        return list(self._values)


class ModelOutput:
    """The losses of one batch, by name and summed.

    ``output.loss`` is the sum; ``output.loss_itc`` or ``output["loss_itc"]`` one part. Extra named
    values (``sims``, ``intermediate_output``) are attributes as well, as LAVIS's users expect.

    Args:
        losses: name -> () loss in fp32.
        extras: whatever else the model hands out.
    """

    def __init__(self, losses: dict[str, Tensor], **extras: Any) -> None:
        self.losses = losses
        self.loss = torch.stack(list(losses.values())).sum() if losses else None
        self._extras = extras

    def __getattr__(self, name: str) -> Any:
        if name.startswith("loss_") and name[5:] in self.__dict__.get("losses", {}):
            return self.losses[name[5:]]
        if name in (extras := self.__dict__.get("_extras", {})):
            return extras[name]
        raise AttributeError(f"no {name!r} in this output; it has {', '.join(self.keys())}")

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError as error:
            raise KeyError(str(error)) from None

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_brief(self[name])}" for name in self.keys())
        return f"{type(self).__name__}({values})"

    def keys(self) -> list[str]:
        """The names of everything in the output."""
        return ["loss", *(f"loss_{name}" for name in self.losses), *self._extras]


def _brief(value: Any) -> str:
    """A number as it is, a tensor by its shape."""
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{value.item():.5g}" if value.ndim == 0 else f"tensor{tuple(value.shape)}"


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
