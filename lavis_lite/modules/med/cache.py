"""The decoder's KV cache: self-attention keys and values of the texts of each image.

Dim letters: B images (B' kept ones), K texts (beams, samples) per image, P prompt tokens, D width,
C slots of the cache per image, F slots of what all texts of an image see first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lavis_lite.modules.med.attention import KeyValue, select


class LayerKVCache:
    """The KV cache of one layer.

    A layer is given this cache rather than its number, so that all layers share compiled code.

    Args:
        capacity: slots per image.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0  # slots filled by earlier steps
        self.stored: KeyValue | None = None

    @property
    def num_rows(self) -> int:
        """The number of images whose keys are stored."""
        return self.stored.num_rows if self.stored else 0

    def extend(self, new: KeyValue) -> KeyValue:
        """Store the step's keys and values (B, heads, K, D / heads); return all of them so far."""
        end = self.used + new.key.shape[2]
        assert end <= self.capacity, f"a cache of {self.capacity} slots cannot take {end}"
        if self.stored is None:
            num_rows, num_heads, _, head_width = new.key.shape
            shape = (num_rows, num_heads, self.capacity, head_width)  # (B, heads, C, D/heads)
            self.stored = KeyValue(new.key.new_empty(shape), new.value.new_empty(shape))
        key, value = self.stored
        key[:, :, self.used : end] = new.key  # (B, heads, K, D/heads)
        value[:, :, self.used : end] = new.value  # (B, heads, K, D/heads)
        return KeyValue(key[:, :, :end], value[:, :, :end])  # (B, heads, end, D/heads)


class Cache:
    """The KV cache of K texts per image that share the image's prompt.

    One buffer per layer holds the prompt once and then K slots per step. A mask says which slots a
    text may look at: so continuing another beam (``reorder``) moves a few booleans, and the keys
    and values stay in place. Attention reads each slot once per image for all K texts.

    Args:
        capacity: slots per image, F + P + K * (number of steps).
        prefix: per layer, keys and values (B, heads, F, D / heads) that every text sees in front of
            its own; they are no tokens of the texts, whose positions start behind them from 0.
    """

    def __init__(self, capacity: int, prefix: Sequence[KeyValue] = ()) -> None:
        self.capacity = capacity
        self.position = 0  # tokens decoded so far, the prompt included
        self._prefix = prefix
        self._used = prefix[0].key.shape[2] if prefix else 0  # slots filled
        self._layers: list[LayerKVCache] = []
        self._visible: Tensor | None = None  # (B, K, C), from the first step with K > 1 on

    def begin(self, num_texts: int, device: torch.device, num_rows: int) -> Tensor | None:
        """Begin a step of K texts; return its mask (B, 1, K, slots), None if all is visible.

        The first step reads a prompt of P = ``num_texts`` tokens. Behind a prefix its mask is
        (P, F + P), causal; without one None, and the caller hides later tokens itself.
        """
        if num_texts == 1:
            return None
        if self.position == 0:
            size = (num_texts, self._used + num_texts)  # (P, F + P)
            visible = torch.ones(size, dtype=torch.bool, device=device).tril(self._used)
            return visible if self._used else None
        if self._visible is None:
            shape = (num_rows, num_texts, self.capacity)  # (B, K, C)
            self._visible = torch.zeros(shape, dtype=torch.bool, device=device)
            self._visible[:, :, : self._used] = True
        end = self._used + num_texts
        itself = torch.eye(num_texts, dtype=torch.bool, device=device)  # (K, K)
        self._visible[:, :, self._used : end] = itself
        return self._visible[:, None, :, :end]  # (B, 1, K, end)

    def layer(self, number: int) -> LayerKVCache:
        """Return the cache of one layer; the layers ask in their order."""
        if number == len(self._layers):
            self._layers.append(LayerKVCache(self.capacity))
            if self._prefix:
                self._layers[number].extend(self._prefix[number])
                self._layers[number].used = self._prefix[number].key.shape[2]
        return self._layers[number]

    def end(self, num_slots: int, num_tokens: int) -> None:
        """End a step that filled ``num_slots`` slots and added ``num_tokens`` to each text."""
        self._used += num_slots
        for layer in self._layers:
            layer.used = self._used
        self.position += num_tokens

    def reorder(self, parents: Tensor) -> None:
        """Let text k of each image continue its text ``parents[:, k]``; parents is (B, K)."""
        if self._visible is not None:
            index = parents[:, :, None].expand_as(self._visible)  # (B, K, C)
            self._visible = self._visible.gather(1, index)  # (B, K, C)

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        for layer in self._layers:
            if layer.stored is not None:
                (layer.stored,) = select([layer.stored], rows)  # (B', heads, C, D/heads)
        if self._visible is not None:
            self._visible = self._visible.index_select(0, rows)  # (B', K, C)
