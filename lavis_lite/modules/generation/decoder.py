"""The decoder protocol that every generation method drives."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """A decoder that reads B prompts once, then extends K texts per image token by token."""

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        """Read the prompts (B, P) for K texts each; return the next token's logits (B, V)."""
        ...

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append ``ids[:, k]`` to text ``parents[:, k]`` as text k; return logits (B, K, V)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        ...


def should_compact(num_going: int, num_rows: int) -> bool:
    """Tell whether the finished images should leave the batch now.

    Compacting the batch copies the keys of the images that stay. When it waits until half of them
    are finished, all copies of a run together cost at most one copy of the whole batch.
    """
    return 2 * num_going <= num_rows
