"""Sequence packing: texts of different lengths share rows, so that little padding is read.

Dim letters: B images, K texts of each, G rows of an image, T tokens of a row, S texts of a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_lite.modules.text.text_batch import TextBatch

# Row widths to try. Wider rows pad less, but attention computes scores that the mask then hides: at
# 128 tokens these are 2 % of a base tower's work.
WIDTHS = range(64, 129, 16)


class PackedTexts(NamedTuple):
    """Packed rows of whole texts, the same number of rows for each image.

    ids: (B, G, T) tokens; 0 at padding.
    positions: (B, G, T) positions of the tokens in their texts.
    owners: (B, G, T) number of the text that each token belongs to; -1 at padding.
    starts: (B, G, S) first token of each text in a row; padded with 0.
    order: (B, K) index of each text in an image's G * S starts.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    starts: Tensor
    order: Tensor

    @property
    def visible(self) -> Tensor:
        """The mask (B, G, T, T): True within a text."""
        # Padding sees padding: a softmax over no key at all would be NaN.
        return self.owners[..., :, None] == self.owners[..., None, :]  # (B, G, T, T)

    def split(self, num_tokens: int) -> Iterator[PackedTexts]:
        """Yield the rows in parts of about ``num_tokens`` tokens, equally many rows per image."""
        num_images, num_rows, width = self.ids.shape
        at_once = max(1, num_tokens // (num_images * width))
        for first in range(0, num_rows, at_once):
            part = slice(first, first + at_once)
            ids, positions, owners, starts = (x[:, part] for x in self[:4])
            yield PackedTexts(ids, positions, owners, starts, self.order)


def pack_texts(texts: TextBatch, num_images: int) -> PackedTexts:
    """Pack K texts for each of B images, image-major, into as few tokens as possible.

    If the texts have about the same length, each gets a row of its own.
    """
    lengths = texts.mask.sum(1).cpu()  # (B * K,)
    of_image = lengths.view(num_images, -1)
    lists = of_image.tolist()
    most = max(map(sum, lists))
    counts = {len(lists[0]), *(min(len(lists[0]), -(-most // width)) for width in WIDTHS)}
    tried = [
        [_assign_rows(lengths_of_image, count) for lengths_of_image in lists]
        for count in sorted(counts, reverse=True)
    ]
    best = min(tried, key=lambda rows: max(s.width for s in rows) * rows[0].num_rows)
    row, slot, start = (
        torch.tensor([getattr(shared, name) for shared in best])
        for name in ("row", "slot", "start")
    )
    return _packed(texts, lengths, row, slot, start)


class _Assignment(NamedTuple):
    """The assignment of an image's texts to rows: row, number in it, and first token, per text.

    width: tokens of the longest row.
    """

    row: list[int]
    slot: list[int]
    start: list[int]
    width: int
    num_rows: int


def _assign_rows(lengths: Sequence[int], num_rows: int) -> _Assignment:
    """Assign texts to rows, longest first, each to the row with the fewest tokens so far."""
    row, slot, start = ([0] * len(lengths) for _ in range(3))
    rows = [(0, 0, number) for number in range(num_rows)]  # tokens, texts, row number
    for text in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        used, held, number = rows[0]
        row[text], slot[text], start[text] = number, held, used
        heapq.heapreplace(rows, (used + lengths[text], held + 1, number))
    return _Assignment(row, slot, start, max(rows)[0], num_rows)


def _packed(
    texts: TextBatch, lengths: Tensor, row: Tensor, slot: Tensor, start: Tensor
) -> PackedTexts:
    """Copy texts into rows, given each text's row, number in it and first token, (B, K) each."""
    num_images, num_texts = row.shape
    num_rows, num_slots = int(row.max()) + 1, int(slot.max()) + 1
    width = int((start.flatten() + lengths).max())
    image = torch.arange(num_images)[:, None].expand(-1, num_texts)  # (B, K)
    starts = torch.zeros(num_images, num_rows, num_slots, dtype=torch.long)
    starts[image, row, slot] = start
    # For every token: its text, its position there, and its destination.
    text = torch.arange(len(lengths)).repeat_interleave(lengths)
    within = torch.arange(len(text)) - (lengths.cumsum(0) - lengths)[text]
    to = (image.flatten()[text], row.flatten()[text], start.flatten()[text] + within)
    shape = (num_images, num_rows, width)
    positions, owners = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    positions[to], owners[to] = within, text
    device = texts.ids.device
    ids = texts.ids.new_zeros(shape)
    ids[tuple(x.to(device) for x in to)] = texts.ids[text.to(device), within.to(device)]
    return PackedTexts(
        ids,
        positions.to(device),
        owners.to(device),
        starts.to(device),
        (row * num_slots + slot).to(device),
    )
