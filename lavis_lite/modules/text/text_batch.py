"""A batch of tokenised texts, and the special tokens and padding that tokenizers share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ADDED = ("[DEC]", "[ENC]")


def characters(text: str) -> str:
    """Return the text with ``?`` for lone surrogates, which tokenizers do not take."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def padded(rows: list[list[int]], pad_id: int, length: int | None = None) -> TextBatch:
    """Pad rows of ids on the right, to the longest or to ``length``, on the CPU."""
    length = length or max(map(len, rows), default=2)
    ids = [row + [pad_id] * (length - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    shape = (len(rows), length)
    # The device is explicit: a model may be built without storage, inside `torch.device("meta")`.
    tensors = [torch.tensor(x, dtype=torch.long, device="cpu").view(shape) for x in (ids, mask)]
    return TextBatch(*tensors)


class TextBatch(NamedTuple):
    """Token ids (B, T), padded on the right, and their mask (B, T), 1 for real tokens."""

    ids: Tensor
    mask: Tensor

    @property
    def input_ids(self) -> Tensor:
        """The ids, under the name that transformers gives them."""
        return self.ids

    @property
    def attention_mask(self) -> Tensor:
        """The mask, under the name that transformers gives it."""
        return self.mask

    def to(self, device: torch.device | str) -> TextBatch:
        """Return the batch on another device."""
        return TextBatch(self.ids.to(device), self.mask.to(device))

    def replace_first(self, token_id: int) -> TextBatch:
        """Return the batch with another token at position 0; ids are copied, the mask is shared."""
        ids = self.ids.clone()
        ids[:, 0] = token_id
        return TextBatch(ids, self.mask)
