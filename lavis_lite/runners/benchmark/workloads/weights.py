"""A model from its file of weights, beside reading that file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.checkpoint.weights import read_weights, save_weights
from lavis_lite.models.zoo import create_model, load_model
from lavis_lite.runners.benchmark.agreement import Difference


@registry.register("workload", "load_weights")
class LoadWeights:
    """``load_model`` from a safetensors file, beside reading the bytes of the file.

    The file has been read before: both sides find it in the system's memory.

    Args:
        model: a registered model; its weights are random.
        type: one of its types.
        arguments: of its builder; ``tokenizer: null`` fetches nothing.
        device, precision: where the model goes; the format is of no effect.
    """

    arithmetic = False
    unit = "models"
    amount = 1
    baselines = ("reading the file",)

    def __init__(
        self,
        model: str,
        type: str,
        arguments: dict[str, Any] | None = None,
        *,
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.model, self.type, self.arguments = model, type, arguments or {}
        self.device = str(device)
        self._files: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.path = Path(self._files.name) / "model.safetensors"
        save_weights(create_model(model, type, **self.arguments), self.path)

    def contender(self, name: str) -> Callable[[], Any]:
        """Ours returns the model, the baseline the number of bytes."""
        if name == "ours":
            return self._load
        return lambda: len(self.path.read_bytes())

    def _load(self) -> nn.Module:
        return load_model(
            self.model, self.type, device=self.device, checkpoint=str(self.path), **self.arguments
        )

    def differences(self, baseline: str, ours: nn.Module, theirs: int) -> list[Difference]:
        """The model has every weight of the file, to the bit."""
        weights, found = read_weights(self.path), ours.state_dict()
        wrong = [
            name
            for name, tensor in weights.items()
            if name not in found or not torch.equal(found[name].cpu(), tensor)
        ]
        return [Difference("tensors that differ", len(wrong), 0)]
