"""Image tokens of a whole evaluation, in RAM or in a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor


class TokenStore:
    """Tokens (N, D) of numbered images, in the dtype in which they come.

    Args:
        count: how many images there are room for.
        path: a file to map instead of taking RAM; the system then keeps in memory what fits.
    """

    def __init__(self, count: int, path: Path | None = None) -> None:
        self._count = count
        self._path = path
        self._tokens: Tensor | None = None

    def put(self, positions: Sequence[int], tokens: Tensor) -> None:
        """Keep tokens (B, N, D), which may be on any device."""
        if self._tokens is None:
            self._tokens = self._room(tokens.shape[1:], tokens.dtype)
        self._tokens[torch.as_tensor(positions)] = tokens.to("cpu")

    def take(self, positions: Tensor) -> Tensor:
        """(B,) positions -> (B, N, D) on the CPU."""
        assert self._tokens is not None, "nothing has been stored"
        return self._tokens[positions]

    def _room(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        if self._path is None:
            return torch.empty(self._count, *shape, dtype=dtype)
        size = self._count * shape.numel()
        mapped = torch.from_file(str(self._path), shared=True, size=size, dtype=dtype)
        return mapped.view(self._count, *shape)


@contextmanager
def token_store(
    count: int, place: Literal["memory", "disk"], folder: str | Path | None
) -> Iterator[TokenStore]:
    """A store that is gone afterwards; one on disk lies in ``folder`` (default: the system's)."""
    if place == "memory":
        yield TokenStore(count)
        return
    with tempfile.TemporaryDirectory(prefix="image-tokens-", dir=folder) as inner:
        yield TokenStore(count, Path(inner) / "tokens.bin")
