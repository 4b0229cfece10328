"""The moving average of a run's weights (EMA), which often evaluates better than they do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lavis_lite.modules.layers.ema import momentum_update


class WeightAverage:
    """EMA of trained weights: ``average = decay * average + (1 - decay) * weights``.

    It starts at the weights it is made with. Frozen parameters, momentum copies and buffers are
    those of the model. Not to be confused with a momentum copy, which takes part in training.

    Args:
        model: the model in training; its parameters are followed in place.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._trained.items()}

    def update(self) -> None:
        """Follow the weights after a step."""
        momentum_update(self._trained.values(), self._average.values(), self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights in this context, and its own weights afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._trained.items():
            parameter.data, self._average[name] = self._average[name], parameter.data

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors of the model with the averaged ones in their places, as weights to load."""
        with self.applied():
            return dict(self.model.state_dict())

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what ``state_dict`` returned."""
        for name, average in self._average.items():
            average.copy_(state[name])
