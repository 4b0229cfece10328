"""Match logits of many image-text pairs, organised so that an image is read for many texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite.metrics.token_store import TokenStore
from lavis_lite.modules.interfaces import Ranks

# Texts of an image per call: enough that projecting the image again for the next call is cheap
# beside reading them, few enough that texts of like length stand together.
_TEXTS_PER_IMAGE = 64


class Texts:
    """Tokenised texts that are read in any order, without padding beyond the longest of a batch.

    Args:
        tokens: the model's ``tokenize`` of all of them.
    """

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens.to("cpu")
        self.lengths: Tensor = self._tokens.mask.sum(1)  # (number of texts,)

    def take(self, rows: Tensor, device: torch.device) -> Any:
        """The texts of these rows (B,), as the model's text batch."""
        longest = int(self.lengths[rows].max())
        ids, mask = self._tokens.ids[rows, :longest], self._tokens.mask[rows, :longest]
        return self._tokens._replace(ids=ids, mask=mask).to(device)

    def by_length(self, batch_size: int) -> Iterator[Tensor]:
        """Rows in batches of like length."""
        yield from self.lengths.argsort(stable=True).split(batch_size)


class Block(NamedTuple):
    """Pairs of one call: (B,) images, (B, K) places in the list of pairs, (B, K) which count."""

    images: Tensor
    places: Tensor
    counts: Tensor


def blocks(image: Tensor, length: Tensor, chunk_size: int) -> Iterator[list[Block]]:
    """Arrange pairs as rectangles of at most ``chunk_size``, grouped by the images they share.

    Images with about as many texts stand together; a shorter list is filled up with its last pair,
    which is computed and dropped. A group's later blocks hold a prefix of its first one's images.

    Args:
        image: (P,) image of each pair, ascending.
        length: (P,) tokens of each pair's text, ascending within an image.
        chunk_size: pairs in one call of the model.
    """
    if not len(image):  # more processes than images
        return
    images, counts = image.unique_consecutive(return_counts=True)
    starts = counts.cumsum(0) - counts
    width = min(_TEXTS_PER_IMAGE, chunk_size)
    by_count = counts.argsort(descending=True, stable=True)
    for group in by_count.split(max(1, chunk_size // width)):
        most, rectangles = int(counts[group[0]]), []
        for first in range(0, most, width):
            inside = group[counts[group] > first]
            column = torch.arange(first, min(first + width, most))
            last = counts[inside, None] - 1
            places = starts[inside, None] + column.minimum(last)
            rectangles.append(Block(images[inside], places, column <= last))
        yield rectangles


def match_logits(
    model: Ranks,
    store: TokenStore,
    texts: Texts,
    pairs: Tensor,
    chunk_size: int,
    device: torch.device,
) -> Tensor:
    """Logits of "matches".

    Args:
        model: matches.
        store: tokens of the images.
        texts: the texts.
        pairs: (P, 2) place in the store and row of the texts, all different, in any order.
        chunk_size: pairs in one call of the model.
        device: of the model.

    Returns:
        (P,) in the order of ``pairs``.
    """
    order = _by_image_then_length(pairs, texts.lengths)
    image, text = pairs[order].unbind(1)
    logits = torch.empty(len(pairs))
    for group in blocks(image, texts.lengths[text], chunk_size):
        tokens = store.take(group[0].images).to(device)
        for block in group:
            batch = texts.take(text[block.places].flatten(), device)
            scores = model.rank(tokens[: len(block.images)], batch).float().cpu()  # (B, K)
            logits[order[block.places[block.counts]]] = scores[block.counts]
    return logits


def _by_image_then_length(pairs: Tensor, lengths: Tensor) -> Tensor:
    text = pairs[:, 1]
    key = (pairs[:, 0] * (lengths.max() + 1) + lengths[text]) * len(lengths) + text
    return key.argsort()
