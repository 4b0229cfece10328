"""A ring of features of earlier batches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The newest ``size`` pairs of unit-length image and text features, as columns.

    Buffers have the names of BLIP's checkpoints: ``image_queue`` and ``text_queue`` (E, Q),
    ``queue_ptr`` (1,), and with ``ids`` also ``idx_queue`` (1, Q), -100 where nothing was written.
    Takes batches of any size.

    Args:
        width: E.
        size: Q; 0 keeps nothing.
        ids: whether to remember which image a pair is of.
    """

    image_queue: Tensor
    text_queue: Tensor
    queue_ptr: Tensor
    idx_queue: Tensor

    def __init__(self, width: int, size: int, *, ids: bool) -> None:
        super().__init__()
        self.size = size
        for name in ("image_queue", "text_queue"):
            # Random directions until real features arrive, as published.
            self.register_buffer(name, F.normalize(torch.randn(width, size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        if ids:
            self.register_buffer("idx_queue", torch.full((1, size), -100, dtype=torch.long))

    @property
    def has_ids(self) -> bool:
        """Tell whether ``idx_queue`` exists."""
        return "idx_queue" in self._buffers

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor, ids: Tensor | None = None) -> None:
        """Write the newest rows over the oldest.

        Args:
            image: (B, E) features.
            text: (B, E) features.
            ids: (B,) which image each is of; needed when the queue keeps ids.
        """
        if self.size == 0:
            return
        image, text = image[-self.size :], text[-self.size :]
        count = len(image)
        places = (self.queue_ptr + torch.arange(count, device=image.device)) % self.size
        self.image_queue[:, places] = image.T.to(self.image_queue.dtype)
        self.text_queue[:, places] = text.T.to(self.text_queue.dtype)
        if self.has_ids:
            assert ids is not None, "this queue keeps ids"
            self.idx_queue[0, places] = ids[-self.size :]
        self.queue_ptr.copy_((self.queue_ptr + count) % self.size)
