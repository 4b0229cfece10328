"""The contracts between the parts, as Protocols with tensor shapes.

Dim letters, here and everywhere: B batch, H W image, N image tokens, T text tokens, D width,
E joint embedding, V vocabulary, Q queue length, K candidates per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lavis_lite.modules.output import Samples
    from lavis_lite.modules.text.text_batch import TextBatch


ImageContext = Any
"""What texts look at: a tensor (B, ...), or lists and tuples of such, of any depth."""


class Tokenizer(Protocol):
    """The ids with a meaning of their own; ``mask_id`` is None where words cannot be hidden."""

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int | None

    def __len__(self) -> int:
        """V."""
        ...


class Account(Protocol):
    """The account of a figure: its samples, and why not the others; ``lavis_lite.data.counts``."""

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
    """The result of a metric.

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
    """An encoder of images; ``grid``, ``num_prefix_tokens``, ``pool`` are optional (vision.py)."""

    width: int

    def __call__(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, N, D)."""
        ...


# ---- what a model can do: capabilities, of which losses, metrics and runners require some


class EncodesImage(Protocol):
    """A model whose images become tokens.

    Optional: ``image_names``, the images of a sample where it is not one alone (``image``); their
    tokens come one image after the other, as rows.
    """

    def encode_image(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, N, D)."""
        ...


class Tokenizes(Protocol):
    """A model that turns texts into ids."""

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts -> ids and mask (B, T)."""
        ...


class Embeds(EncodesImage, Protocol):
    """A model with a joint space of images and texts; all features unit length, fp32.

    An image may be embedded by several vectors, (B, Q, E): the closest to a text counts. Optional:
    ``context_features``, from an image context to the features of the images, where both come of
    one pass over the image.
    """

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        """Map B texts to states (B, T, D)."""
        ...

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E)."""
        ...

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, E)."""
        ...


class Contrasts(Embeds, Tokenizes, Protocol):
    """A model whose joint space is trained by contrast."""

    @property
    def temperature(self) -> Tensor:
        """() what similarities are divided by."""
        ...


class ContrastsPairwise(Contrasts, Protocol):
    """A model that judges every pair of an image and a text by itself.

    ``logit_bias`` () is added to the logit of a pair.
    """

    logit_bias: Tensor


class KeepsMomentum(Protocol):
    """A model with a momentum copy.

    ``momentum`` encodes as the model does, and whatever else a loss asks of it.
    """

    momentum: Any


class ContrastsWithMomentum(Contrasts, KeepsMomentum, Protocol):
    """A model that contrasts with the features of its momentum copy, and a queue of such.

    ``embed_width`` is the width E of the joint space.
    """

    embed_width: int


class LooksAtImages(EncodesImage, Tokenizes, Protocol):
    """A model whose texts look at images."""

    def image_context(self, image_tokens: Tensor) -> ImageContext:
        """(B, N, D) -> what texts look at, computed once per image: projected, or as it is."""
        ...


class Matches(EncodesImage, Protocol):
    """A model that tells whether a text matches an image."""

    def match(self, image_tokens: Tensor, text: list[str] | TextBatch) -> Tensor:
        """Return logits (B, 2), no match and match, of image tokens (B, N, D) and B texts."""
        ...


class Ranks(EncodesImage, Protocol):
    """A model that scores several texts per image."""

    def rank(self, image_tokens: Tensor, texts: list[list[str]] | TextBatch) -> Tensor:
        """Return match logits (B, K) of tokens (B, N, D) and K texts per image, image-major."""
        ...


class LearnsMatching(Contrasts, LooksAtImages, Protocol):
    """A model that learns to match, with negatives that are chosen by contrast.

    Texts are padded with the ``pad_id`` of its ``tokenizer``. Optional: ``fuses_states``, true
    where ``match_pairs`` goes on from ``states``, those (K * B, T, D) of the texts alone, which it
    then takes as a third argument.
    """

    tokenizer: Tokenizer

    def match_pairs(self, image_context: ImageContext, text: TextBatch) -> Tensor:
        """Context of B images and K * B texts, image-major -> (K * B, 2) logits."""
        ...


class Decodes(LooksAtImages, Protocol):
    """A model that predicts each token of a text from the image and the tokens before it.

    The first ``prompt_length`` tokens of a text are given, not learnt.
    """

    prompt_length: int

    def decode_logits(self, image_context: ImageContext, text: TextBatch) -> Tensor:
        """Context of B images and B texts (B, T) -> (B, T, V), of each next token."""
        ...


class LearnsTexts(EncodesImage, Protocol):
    """A model that learns the texts of samples, behind what it has read of their images."""

    def text_logits(self, image_tokens: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """(B, N, D) and the samples -> logits (B, T, V), targets (B, T), -100: not learnt."""
        ...


class FindsWords(LooksAtImages, KeepsMomentum, Protocol):
    """A model that finds hidden words from the rest of their text and its image.

    A text is cut to ``max_length`` tokens.
    """

    tokenizer: Tokenizer
    max_length: int

    def predict_words(self, image_context: ImageContext, text: TextBatch, places: Tensor) -> Tensor:
        """Context of B images and B texts -> (M, V) logits at the places (B, T), bool."""
        ...


class LearnsClasses(EncodesImage, Tokenizes, Protocol):
    """A model with logits of the class of an image, or of several, with a text.

    Optional: ``momentum``, a copy whose opinion is mixed into the targets.
    """

    def classify(self, image_tokens: Tensor, text: TextBatch) -> Tensor:
        """(B, N, D) and B texts -> (B, C) logits, fp32."""
        ...


class LearnsAnswers(EncodesImage, Tokenizes, Protocol):
    """A model that reads questions with images and writes answers.

    Optional: ``momentum``, a copy whose opinion is mixed into the targets.
    """

    def read_questions(self, image_tokens: Tensor, text: TextBatch) -> tuple[Tensor, Tensor]:
        """(B, N, D) and B questions -> their states (B, T, D) and mask (B, T)."""
        ...

    def question_context(self, states: Tensor) -> ImageContext:
        """(B, T, D) -> what answers look at, computed once per question."""
        ...

    def tokenize_answers(self, answers: list[str]) -> TextBatch:
        """A answers -> ids and mask (A, T)."""
        ...

    def answer_states(self, context: ImageContext, mask: Tensor, answers: TextBatch) -> Tensor:
        """Context of A questions, their mask and A answers (A, T) -> (A, T - 1, D)."""
        ...

    def word_logits(self, states: Tensor) -> Tensor:
        """(M, D) of ``answer_states`` -> (M, V) logits, fp32."""
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


CAPABILITIES: tuple[type, ...] = (
    *(EncodesImage, Tokenizes, Embeds, Contrasts, ContrastsPairwise, KeepsMomentum),
    *(ContrastsWithMomentum, LooksAtImages, Matches, Ranks, LearnsMatching, Decodes),
    *(
        LearnsTexts,
        FindsWords,
        LearnsClasses,
        LearnsAnswers,
        Generates,
        Answers,
        Classifies,
        Localizes,
    ),
)


# ---- what runners give to metrics


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

    requires: tuple[str | type, ...]

    def evaluate(self, model: Any, data: EvaluationData, runner: Context) -> Evaluation: ...
