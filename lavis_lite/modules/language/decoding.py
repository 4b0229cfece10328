"""Step-by-step writing with a language model of transformers, over its own key-value cache.

Dim letters: B images (B' kept ones), K texts per image, L tokens in front of the texts, V
vocabulary.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


def cache_name(model: PreTrainedModel) -> str:
    """Return the argument that a model takes its key-value cache under."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class CachedWriter(ABC):
    """A decoder for ``lavis_lite.modules.generation.generate``, bound to what B texts start from.

    The prompt that ``start`` is given only counts as the beginning of each text: what is read is
    what the writer is bound to. Rows of the cache are texts, image-major.

    Args:
        model: a language model of transformers.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.cache_name = cache_name(model)
        self.num_texts = 1
        self.cache: Cache

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        """Read what the texts start from; return the logits (B, V) of the first token."""
        self.num_texts = 1
        logits = self.begin()
        self.num_texts = num_texts
        if num_texts > 1:
            self.cache.batch_repeat_interleave(num_texts)
            self.repeat(num_texts)
        return logits

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append ``ids[:, k]`` to text ``parents[:, k]`` as text k; return logits (B, K, V)."""
        num_images, num_texts = ids.shape
        if parents is not None and num_texts > 1:
            first = num_texts * torch.arange(num_images, device=ids.device)[:, None]  # (B, 1)
            rows = (first + parents).flatten()
            self.cache.reorder_cache(cast("torch.LongTensor", rows))
        logits = self.go_on(ids.reshape(-1, 1))  # (B * K, V)
        return logits.view(num_images, num_texts, -1)

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        texts = torch.arange(self.num_texts, device=rows.device)
        chosen = (rows[:, None] * self.num_texts + texts).flatten()  # (B' * K,)
        self.cache.batch_select_indices(chosen)
        self.select(chosen)

    @abstractmethod
    def begin(self) -> Tensor:
        """Read what the texts start from into a new cache; return logits (B, V)."""

    @abstractmethod
    def go_on(self, ids: Tensor) -> Tensor:
        """Read one more token (B * K, 1) of every text; return logits (B * K, V)."""

    @abstractmethod
    def repeat(self, num_texts: int) -> None:
        """Repeat each row of what is kept beside the cache ``num_texts`` times."""

    @abstractmethod
    def select(self, rows: Tensor) -> None:
        """Keep only these rows of what is kept beside the cache."""
