"""Decoders to generate with: tables of logits, and a MED that remembers nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lavis_lite.modules.med.attention import KeyValue
from lavis_lite.modules.med.model import Med, MedDecoder


class Table:
    """Logits looked up by image, length so far and last token; counts the rows that it served."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits  # (B, max length, V, V)
        self.served: list[int] = []

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        self.rows = torch.arange(len(prompt))
        self.tokens = prompt[:, None].expand(-1, num_texts, -1)
        return self._look_up()[:, 0]

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        if parents is not None:
            index = parents[..., None].expand(-1, -1, self.tokens.shape[-1])
            self.tokens = self.tokens.gather(1, index)
        self.tokens = torch.cat([self.tokens, ids[..., None]], dim=-1)
        return self._look_up()

    def keep(self, rows: Tensor) -> None:
        self.rows, self.tokens = self.rows[rows], self.tokens[rows]

    def _look_up(self) -> Tensor:
        self.served.append(len(self.rows))
        return self.logits[self.rows[:, None], self.tokens.shape[-1], self.tokens[..., -1]]


def make_table(seed: int, images: int, max_length: int, vocab: int, end_bias: float = 0.0) -> Table:
    """Normal logits; the last token is the end token, ``end_bias`` likelier."""
    shape = (images, max_length, vocab, vocab)
    logits = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
    logits[..., -1] += end_bias
    return Table(torch.from_numpy(logits.astype(np.float32)))


class Recompute:
    """A MED decoder without a cache: every text anew, every image repeated, at every step."""

    def __init__(
        self, decoder: MedDecoder, image_kv: list[KeyValue], image_mask: Tensor | None = None
    ) -> None:
        self.decoder, self.image_kv, self.image_mask = decoder, image_kv, image_mask

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        self.rows = torch.arange(len(prompt))
        self.tokens = prompt[:, None].expand(-1, num_texts, -1)
        return self._logits()[:, 0]

    step = Table.step
    keep = Table.keep

    def _logits(self) -> Tensor:
        num_texts = self.tokens.shape[1]
        rows = self.rows.repeat_interleave(num_texts)
        logits = self.decoder(
            self.tokens.flatten(0, 1),
            image_kv=[KeyValue(key[rows], value[rows]) for key, value in self.image_kv],
            image_mask=None if self.image_mask is None else self.image_mask[rows],
        )
        return logits[:, -1].unflatten(0, (-1, num_texts))

    _look_up = _logits


@pytest.fixture(scope="session")
def table() -> Callable[..., Table]:
    """``table(seed, images, max_length, vocab, end_bias)``; the last token ends a text."""
    return make_table


@pytest.fixture(scope="session")
def recompute() -> type[Recompute]:
    """``recompute(decoder, image_kv, image_mask)``: a decoder without a cache."""
    return Recompute


@pytest.fixture(scope="session")
def med_decoder() -> MedDecoder:
    """A small MED decoder with weights that matter: 30 words, 3 ends a text, images 12 wide."""
    torch.manual_seed(0)
    decoder = MedDecoder(
        Med(
            width=16, depth=2, num_heads=2, mlp_width=24, vocab_size=30, encoder_width=12,
            max_length=20,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.35 * torch.randn_like(parameter))
        decoder.cls.predictions.bias[3] += 4.0
    return decoder.eval()
