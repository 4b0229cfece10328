"""What the methods of generation ask of a decoder."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Decoder(Protocol):
    """What ``generate`` needs: B prompts read once, then K texts per image, a token at a time."""

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        """Reads the prompts (B, P) for K texts each; returns the next token's logits (B, V)."""
        ...

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """Text k goes on from text ``parents[:, k]`` with ``ids[:, k]``; logits (B, K, V)."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Goes on with the images ``rows`` (B',) alone."""
        ...


def leaves(num_going: int, num_rows: int) -> bool:
    """Whether the finished images should leave the batch now.

    Leaving copies the keys of those that stay. Done when half are finished, all the copies of a
    run together are at most one copy of the whole batch.
    """
    return 2 * num_going <= num_rows
