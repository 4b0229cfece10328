"""The images and texts of a dataset, and the setting in which a model is evaluated on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite import distributed
from lavis_lite.data.counts import Counts
from lavis_lite.errors import ConfigError, DataError
from lavis_lite.metrics.counts import count, set_aside
from lavis_lite.modules.interfaces import Context, EvaluationData
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.registry.capabilities import missing_from


@dataclass(frozen=True)
class Image:
    """One image: the first of its rows stands for it."""

    index: int
    key: str
    image_id: int | str


@dataclass(frozen=True)
class Text:
    """One text as the dataset has it (not processed), and the position of its image."""

    index: int
    key: str
    image: int
    text: str


class Pairs(NamedTuple):
    """Images in the order of their first rows, and texts in the order of the rows."""

    images: list[Image]
    texts: list[Text]

    def texts_by_image(self) -> list[list[str]]:
        """The texts of each image."""
        grouped: list[list[str]] = [[] for _ in self.images]
        for row in self.texts:
            grouped[row.image].append(row.text)
        return grouped

    def with_texts(self, process: Callable[[str], str]) -> tuple[Pairs, dict[str, list[int]]]:
        """The texts in which something stands and their images, and the rows left out by rule.

        Args:
            process: what is done to a text before a model reads it; a prompt alone is no text.
        """
        blank = process("").strip()
        said = [row for row in self.texts if (t := process(row.text).strip()) and t != blank]
        kept = {row.image for row in said}
        left_out = {
            "empty text": sorted({row.index for row in self.texts} - {row.index for row in said}),
            "no text": [row.index for n, row in enumerate(self.images) if n not in kept],
        }
        return Pairs(self.images, said).only(sorted(kept)), left_out

    def only(self, readable: list[int]) -> Pairs:
        """The given images (positions, ascending) with their texts, numbered anew."""
        position = {old: new for new, old in enumerate(readable)}
        texts = [replace(t, image=position[t.image]) for t in self.texts if t.image in position]
        return Pairs([self.images[old] for old in readable], texts)


def read_pairs(data: EvaluationData) -> Pairs:
    """Group the rows of a dataset by ``image_id``, without decoding an image.

    Every process reads its share of the rows. An unreadable row is quarantined and left out.

    Raises:
        DataError: no row can be read.
    """
    shares = distributed.all_gather_object(
        list(_read_rows(data, distributed.shard(len(data.dataset))))
    )
    images: dict[int | str, int] = {}
    pairs = Pairs([], [])
    for index, key, image_id, text in itertools.chain.from_iterable(shares):
        if image_id not in images:
            images[image_id] = len(images)
            pairs.images.append(Image(index, key, image_id))
        pairs.texts.append(Text(index, key, images[image_id], text))
    if not pairs.images:
        raise DataError(f"nothing to evaluate: none of {len(data.dataset)} rows could be read")
    return pairs


def _read_rows(data: EvaluationData, indices: range) -> Iterator[tuple[int, str, int | str, str]]:
    # A dataset may offer its rows without their images.
    read = getattr(data.dataset, "annotation", data.dataset.__getitem__)
    for index in indices:
        try:
            row = read(index)
        except DataError as error:
            set_aside(data, index, None, str(error))
        else:
            yield index, row["key"], row["image_id"], row.get("text_input", "")


def lost_rows(data: EvaluationData, pairs: Pairs) -> list[int]:
    """Rows of which not even the image is known; each counts as an image of its own."""
    return sorted(set(range(len(data.dataset))) - {row.index for row in pairs.texts})


def count_images(
    data: EvaluationData,
    pairs: Pairs,
    used: Iterable[int],
    left_out: Mapping[str, Sequence[int]] | None = None,
) -> Counts:
    """Count the images of a dataset that figures are of; ``used`` has their first rows."""
    total = [*(image.index for image in pairs.images), *lost_rows(data, pairs)]
    return count(data, total, used, left_out)


def text_processor(data: EvaluationData) -> Callable[[str], str]:
    """The processor that prepares a text of the data for a model."""
    processors = getattr(data, "processors", None)
    return processors.text if processors is not None else str


class ImageBatch(NamedTuple):
    """Some images: their positions among ``Pairs.images`` and the samples, on the device."""

    positions: list[int]
    samples: dict[str, Any]

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W), or (B, F, 3, H, W) the frames of videos."""
        return self.samples["image"]


def image_batches(data: EvaluationData, pairs: Pairs, runner: Context) -> Iterator[ImageBatch]:
    """This process's share of the images, each once; unreadable ones are left out."""
    share = distributed.shard(len(pairs.images))
    position = {pairs.images[p].index: p for p in share}
    for samples in data.batches(list(position)):
        samples["image"] = samples["image"].to(runner.device, non_blocking=True)
        yield ImageBatch([position[int(index)] for index in samples["index"]], samples)


def encode_frames(model: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of images or videos: to match texts with, and to embed.

    A video is matched by the tokens of all its frames, and embedded by their mean: the projection
    being linear, that is the mean of the frames' projections, as in the original BLIP
    (eval_retrieval_video.py).

    Args:
        model: encodes images.
        image: (B, 3, H, W), or (B, F, 3, H, W); or ``VisionTokens`` (B, N, D).

    Returns:
        (B, F * N, D) and (B, N, D); twice the same for images.
    """
    if image.ndim < 5:
        tokens = model.encode_image(image)
        return tokens, tokens
    tokens = model.encode_image(image.flatten(0, 1)).unflatten(0, image.shape[:2])
    return tokens.flatten(1, 2), tokens.mean(dim=1)


@contextmanager
def evaluating(model: Any, runner: Context) -> Iterator[None]:
    """Set evaluation mode, no gradients and the runner's precision; restore the mode afterwards."""
    with eval_mode(model), torch.no_grad(), runner.autocast():
        yield


def demand(model: object, name: str, metric: Any) -> None:
    """Refuse a model that lacks a capability which the metric's arguments ask for.

    Args:
        model: what is to be evaluated.
        name: of the metric, for the message.
        metric: with ``requires_if``: argument -> what it asks for where it is true, and the remedy.

    Raises:
        ConfigError: what is missing, and what to do instead.
    """
    for argument, (capabilities, instead) in metric.requires_if.items():
        missing = missing_from(model, capabilities)
        if missing and getattr(metric, argument):
            raise ConfigError(
                f"{name}: requires {', '.join(missing)}, which {type(model).__name__} lacks; "
                f"{instead}"
            )
