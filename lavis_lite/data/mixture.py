"""The endless order of samples over all datasets, a function of the seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy

from lavis_lite.data.seeding import generator
from lavis_lite.errors import ConfigError


class Draw(NamedTuple):
    """A sample to read: a row of a dataset, in the turn-th permutation of its rows."""

    dataset: int
    turn: int
    row: int


class Mixture:
    """An endless sequence of draws from several datasets.

    An epoch has about as many draws as there are rows. Dataset d gives the share of it that its
    weight demands, going on with its own sequence of permutations where the last epoch left it,
    so that every row of it comes once per turn whatever the weights are.

    Args:
        lengths: rows of each dataset.
        weights: a sampling weight for each, or None for all: by size, a plain concatenation.
        seed: of every permutation.

    Raises:
        ConfigError: on weights that are negative, all zero, or given to some datasets only.
    """

    def __init__(self, lengths: Sequence[int], weights: Sequence[float | None], seed: int):
        assert len(lengths) == len(weights)
        assert all(lengths)
        self.lengths, self.seed = list(lengths), seed
        self._counts = _draws_per_epoch(lengths, weights)
        self._permutations: dict[int, tuple[int, numpy.ndarray]] = {}
        self._epoch: tuple[int, numpy.ndarray] = (-1, numpy.empty((0, 3)))

    @property
    def samples_per_epoch(self) -> int:
        return sum(self._counts)

    def draws(self, start: int, stop: int) -> list[Draw]:
        """The draws at positions start ... stop - 1."""
        draws: list[Draw] = []
        while start < stop:
            epoch, offset = divmod(start, self.samples_per_epoch)
            part = self._epoch_draws(epoch)[offset : offset + stop - start]
            draws.extend(Draw(*row) for row in part.tolist())
            start += len(part)
        return draws

    def _epoch_draws(self, epoch: int) -> numpy.ndarray:
        """(L, 3) dataset, turn, index."""
        if self._epoch[0] != epoch:
            draws = numpy.concatenate(
                [self._dataset_draws(dataset, epoch) for dataset in range(len(self.lengths))]
            )
            if len(self.lengths) > 1:  # one alone is in a random order already
                draws = draws[generator("epoch", self.seed, epoch).permutation(len(draws))]
            self._epoch = (epoch, draws)
        return self._epoch[1]

    def _dataset_draws(self, dataset: int, epoch: int) -> numpy.ndarray:
        length, count = self.lengths[dataset], self._counts[dataset]
        position, stop = epoch * count, (epoch + 1) * count
        parts = [numpy.empty((0, 3), numpy.int64)]
        while position < stop:
            turn, offset = divmod(position, length)
            indices = self._permutation(dataset, turn)[offset : offset + stop - position]
            part = numpy.empty((len(indices), 3), numpy.int64)
            part[:] = (dataset, turn, 0)
            part[:, 2] = indices
            parts.append(part)
            position += len(part)
        return numpy.concatenate(parts)

    def _permutation(self, dataset: int, turn: int) -> numpy.ndarray:
        if self._permutations.get(dataset, (-1, None))[0] != turn:
            rng = generator("turn", self.seed, dataset, turn)
            self._permutations[dataset] = (turn, rng.permutation(self.lengths[dataset]))
        return self._permutations[dataset][1]


def _draws_per_epoch(lengths: Sequence[int], weights: Sequence[float | None]) -> list[int]:
    given = [weight for weight in weights if weight is not None]
    if not given:
        return list(lengths)
    shown = f"weights of the datasets: {list(weights)}"
    if len(given) < len(weights):
        raise ConfigError(f"{shown}; give every dataset a weight, or none (then: by size)")
    if min(given) < 0 or not 0 < sum(given) < math.inf:
        raise ConfigError(f"{shown}; weights are 0 or more, and not all 0")
    total = sum(lengths)
    return [max(round(total * weight / sum(given)), int(weight > 0)) for weight in given]


def probe(draw: Draw, attempt: int, length: int, seed: int) -> int:
    """The row to try in place of a draw that cannot be read, at attempts 1, 2, ... length - 1.

    A stride without a common divisor with the length: every other row comes up exactly once.
    """
    stride = 1 + int(generator("probe", seed, *draw).integers(max(length - 1, 1)))
    while math.gcd(stride, length) > 1:
        stride += 1
    return (draw.row + attempt * stride) % length
