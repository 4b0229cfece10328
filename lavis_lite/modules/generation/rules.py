"""The settings of generation: their check, and the penalties that they put on token scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError, suggest

METHODS = ("beam", "greedy", "nucleus")


@dataclass(frozen=True)
class Rules:
    """The constraints and preferences of generation: the arguments of ``generate``."""

    method: str
    num_beams: int
    num_return: int
    max_length: int
    min_length: int
    top_p: float
    top_k: int
    temperature: float
    repetition_penalty: float
    length_penalty: float
    eos_id: int
    pad_id: int

    def check(self, prompt_length: int) -> None:
        """Raise ConfigError for settings that contradict each other, and name them."""
        if self.method not in METHODS:
            raise ConfigError(
                f"method: {self.method!r}.{suggest(self.method, METHODS)} "
                f"Known: {', '.join(METHODS)}"
            )
        if not prompt_length < self.max_length:
            raise ConfigError(
                f"max_length: {self.max_length}; lengths count the prompt, which has "
                f"{prompt_length} tokens, so at least {prompt_length + 1}"
            )
        most = {"beam": self.num_beams, "greedy": 1}.get(self.method, self.num_return)
        demands = {
            "num_beams": (self.num_beams, self.num_beams >= 1, "at least 1"),
            "texts per image": (
                self.num_return,
                1 <= self.num_return <= most,
                f"from 1 to {most} with method {self.method!r} and {self.num_beams} beams",
            ),
            "min_length": (
                self.min_length,
                self.min_length <= self.max_length,
                f"at most max_length, {self.max_length}",
            ),
            "top_p": (self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
            "top_k": (self.top_k, self.top_k >= 0, "at least 0, which is off"),
            "temperature": (self.temperature, self.temperature > 0, "above 0"),
            "repetition_penalty": (self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
        }
        for name, (value, fits, demand) in demands.items():
            if not fits:
                raise ConfigError(f"{name}: {value}; {demand}")

    def apply(self, scores: Tensor, tokens: Tensor) -> Tensor:
        """Penalise repeats of ``tokens`` (B, K, L) in scores (B, K, V), and bar an early end."""
        if self.repetition_penalty != 1.0:
            seen = scores.gather(-1, tokens)  # (B, K, L)
            penalty = self.repetition_penalty
            scores = scores.scatter(
                -1, tokens, torch.where(seen < 0, seen * penalty, seen / penalty)
            )
        if tokens.shape[-1] < self.min_length:
            scores = scores.index_fill(-1, tokens.new_tensor([self.eos_id]), -torch.inf)
        return scores
