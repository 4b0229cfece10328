"""Texts of different lengths side by side in rows, so that next to no padding is read.

Dim letters: B images, K texts of each, G rows of an image, T tokens of a row, S texts of a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lavis_lite.modules.text.text_batch import TextBatch

# Widths that rows are tried with. Wider ones pad less, but attention reads what it then hides: at
# 128 tokens that is 2 % of a base tower's work.
WIDTHS = range(64, 129, 16)


class Rows(NamedTuple):
    """Rows of whole texts, of each image the same number.

    ids: (B, G, T) tokens; 0 where there is none.
    positions: (B, G, T) of the tokens in their texts.
    owners: (B, G, T) numbers of the texts that the tokens are of; -1 where there is none.
    starts: (B, G, S) places in a row where its texts begin; filled up with 0.
    order: (B, K) places of the texts in an image's G * S starts.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    starts: Tensor
    order: Tensor

    @property
    def visible(self) -> Tensor:
        """(B, G, T, T) True within a text."""
        # Padding sees padding: attention to nothing at all would be no number.
        return self.owners[..., :, None] == self.owners[..., None, :]

    def split(self, num_tokens: int) -> Iterator[Rows]:
        """The same rows, of every image as many at a time as hold about so many tokens."""
        num_images, num_rows, width = self.ids.shape
        at_once = max(1, num_tokens // (num_images * width))
        for first in range(0, num_rows, at_once):
            part = slice(first, first + at_once)
            ids, positions, owners, starts = (x[:, part] for x in self[:4])
            yield Rows(ids, positions, owners, starts, self.order)


def side_by_side(texts: TextBatch, num_images: int) -> Rows:
    """K texts for each of B images, image-major, in as few tokens as they fit in.

    Where texts are about as long as each other, each keeps a row of its own.
    """
    lengths = texts.mask.sum(1).cpu()  # (B * K,)
    of_image = lengths.view(num_images, -1)
    lists = of_image.tolist()
    most = max(map(sum, lists))
    counts = {len(lists[0]), *(min(len(lists[0]), -(-most // width)) for width in WIDTHS)}
    tried = [[_share(own, count) for own in lists] for count in sorted(counts, reverse=True)]
    best = min(tried, key=lambda rows: max(s.width for s in rows) * rows[0].num_rows)
    row, slot, start = (
        torch.tensor([getattr(shared, name) for shared in best])
        for name in ("row", "slot", "start")
    )
    return _laid_out(texts, lengths, row, slot, start)


class _Share(NamedTuple):
    """Where each text of an image stands: its row, its number there, and its first token's place.

    width: tokens of the longest row.
    """

    row: list[int]
    slot: list[int]
    start: list[int]
    width: int
    num_rows: int


def _share(lengths: Sequence[int], num_rows: int) -> _Share:
    """Longest first, each into the row that has the fewest tokens so far."""
    row, slot, start = ([0] * len(lengths) for _ in range(3))
    rows = [(0, 0, number) for number in range(num_rows)]  # tokens, texts, which
    for text in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        used, held, number = rows[0]
        row[text], slot[text], start[text] = number, held, used
        heapq.heapreplace(rows, (used + lengths[text], held + 1, number))
    return _Share(row, slot, start, max(rows)[0], num_rows)


def _laid_out(texts: TextBatch, lengths: Tensor, row: Tensor, slot: Tensor, start: Tensor) -> Rows:
    """The rows, from where each text stands: (B, K) its row, number in it, and first place."""
    num_images, num_texts = row.shape
    num_rows, num_slots = int(row.max()) + 1, int(slot.max()) + 1
    width = int((start.flatten() + lengths).max())
    image = torch.arange(num_images)[:, None].expand(-1, num_texts)  # (B, K)
    starts = torch.zeros(num_images, num_rows, num_slots, dtype=torch.long)
    starts[image, row, slot] = start
    # Of every token: its text, its place there, and where it goes.
    text = torch.arange(len(lengths)).repeat_interleave(lengths)
    within = torch.arange(len(text)) - (lengths.cumsum(0) - lengths)[text]
    to = (image.flatten()[text], row.flatten()[text], start.flatten()[text] + within)
    shape = (num_images, num_rows, width)
    positions, owners = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    positions[to], owners[to] = within, text
    device = texts.ids.device
    ids = texts.ids.new_zeros(shape)
    ids[tuple(x.to(device) for x in to)] = texts.ids[text.to(device), within.to(device)]
    return Rows(
        ids,
        positions.to(device),
        owners.to(device),
        starts.to(device),
        (row * num_slots + slot).to(device),
    )
