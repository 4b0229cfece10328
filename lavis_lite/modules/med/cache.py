"""The decoder's cache: self-attention keys and values of the texts of each image.

Dim letters: B images, K texts (beams, samples) per image, P prompt tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_lite.modules.med.attention import KeyValue, select


class Slots:
    """Self-attention keys and values of one layer.

    A layer is given its own, and no number: so that all layers run one compiled code.

    Args:
        capacity: slots per image.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0  # slots filled by earlier steps
        self.stored: KeyValue | None = None

    def extend(self, new: KeyValue) -> KeyValue:
        """Stores the step's keys and values (B, heads, K, .); returns all of the layer so far."""
        end = self.used + new.key.shape[2]
        assert end <= self.capacity, f"a cache of {self.capacity} slots cannot take {end}"
        if self.stored is None:
            num_rows, num_heads, _, head_width = new.key.shape
            shape = (num_rows, num_heads, self.capacity, head_width)
            self.stored = KeyValue(new.key.new_empty(shape), new.value.new_empty(shape))
        key, value = self.stored
        key[:, :, self.used : end] = new.key
        value[:, :, self.used : end] = new.value
        return KeyValue(key[:, :, :end], value[:, :, :end])


class Cache:
    """Self-attention keys and values of K texts per image that share the image's prompt.

    One buffer per layer holds the prompt once and then K slots per step. Which slots a text may
    look at is a mask: so continuing another beam (``reorder``) moves a few booleans, and the keys
    and values stay where they are. Attention reads each slot once per image for all K texts.

    Args:
        capacity: slots per image, P + K * (number of steps).
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.position = 0  # tokens decoded so far, the prompt included
        self._used = 0  # slots filled
        self._layers: list[Slots] = []
        self._visible: Tensor | None = None  # (B, K, capacity), from the first step with K > 1 on

    def begin(self, num_texts: int, device: torch.device, num_rows: int) -> Tensor | None:
        """Announces a step of K texts; returns its mask (B, 1, K, slots), None when all is seen."""
        if num_texts == 1 or self.position == 0:
            return None
        if self._visible is None:
            shape = (num_rows, num_texts, self.capacity)
            self._visible = torch.zeros(shape, dtype=torch.bool, device=device)
            self._visible[:, :, : self._used] = True
        end = self._used + num_texts
        own = torch.eye(num_texts, dtype=torch.bool, device=device)
        self._visible[:, :, self._used : end] = own
        return self._visible[:, None, :, :end]

    def slots(self, layer: int) -> Slots:
        """Those of one layer; layers ask in their order."""
        if layer == len(self._layers):
            self._layers.append(Slots(self.capacity))
        return self._layers[layer]

    def end(self, num_slots: int, num_tokens: int) -> None:
        """Closes a step that filled ``num_slots`` slots and made each text longer."""
        self._used += num_slots
        for slots in self._layers:
            slots.used = self._used
        self.position += num_tokens

    def reorder(self, parents: Tensor) -> None:
        """Text k of an image goes on from its text ``parents[:, k]``; parents is (B, K)."""
        if self._visible is not None:
            index = parents[:, :, None].expand_as(self._visible)
            self._visible = self._visible.gather(1, index)

    def keep(self, rows: Tensor) -> None:
        """Goes on with the images ``rows`` (B',) alone."""
        for slots in self._layers:
            if slots.stored is not None:
                (slots.stored,) = select([slots.stored], rows)
        if self._visible is not None:
            self._visible = self._visible.index_select(0, rows)
