"""Prepacked weights for inference on the CPU: matrices in oneDNN's layout, reordered once.

Without prepacking, oneDNN reorders a matrix before every product. With few rows, as in text
decoding, that is most of the work.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.linear import Linear

FORMATS = (torch.float32, torch.bfloat16)
PACKABLE = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


class PackedLinear(Linear):
    """A linear layer with a packed copy of its weight, for one dtype.

    The copy is used without gradients, on the CPU, if the products have its dtype (autocast's, if
    that is on), and as long as the weight is the one that was copied. It is dropped when the layer
    begins to train, because fused optimizers and edits of ``weight.data`` cannot be detected.
    """

    _packed: Tensor | None = None
    _copied: tuple[int, int]  # address and version of the weight that was copied

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> PackedLinear:
        """Return a packed layer with the same parameters, in evaluation mode."""
        packed = cls(layer.in_features, layer.out_features, device="meta").eval()
        packed.weight, packed.bias = layer.weight, layer.bias
        weight = layer.weight.detach().to(dtype).contiguous()
        packed._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        packed._copied = _identity(layer.weight)
        return packed

    def train(self, mode: bool = True) -> PackedLinear:
        """Set the mode; training mode drops the copy."""
        if mode:
            self._packed = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., width): by the copy if it is valid, else as ``nn.Linear`` does."""
        product = self._product(x, "none", "")
        return super().forward(x) if product is None else product

    def gelu(self, x: Tensor) -> Tensor:
        """Apply the layer and an exact GELU, which the packed product fuses."""
        product = self._product(x, "gelu", "none")  # exact, not by tanh
        return F.gelu(super().forward(x)) if product is None else product

    def _product(self, x: Tensor, activation: str, algorithm: str) -> Tensor | None:
        """Multiply by the copy; return None if it is not valid here."""
        packed = self._packed
        if packed is None or torch.compiler.is_compiling():
            return None
        if torch.is_grad_enabled():
            if self.weight.requires_grad:  # trains, or may
                self._packed = None
            return None
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
        if (
            dtype != packed.dtype
            or not (autocast or self.weight.dtype == dtype)
            or x.device.type != "cpu"
            or self._copied != _identity(self.weight)
            or torch.jit.is_tracing()
        ):
            return None
        bias = None if self.bias is None else self.bias.to(dtype)
        product = torch.ops.mkldnn._linear_pointwise
        return product(x.to(dtype), packed, bias, activation, [], algorithm)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the copy, which can be neither pickled nor deep-copied."""
        return {**self.__dict__, "_packed": None}


def _identity(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def is_packed(module: nn.Module) -> bool:
    """Tell whether a layer has a packed copy of its weight."""
    return isinstance(module, PackedLinear) and module._packed is not None


def prepack(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Give every ``nn.Linear`` of a model a packed copy of its weight, for inference; in place.

    The model goes to evaluation mode. Parameters, their names and ``state_dict`` stay. Results
    differ by rounding (the sums run in another order). The copies take as much memory as these
    weights in ``dtype``.

    Args:
        model: on the CPU; on other devices, or without oneDNN in torch, nothing happens.
        dtype: fp32 or bf16, the dtype of the products in forward passes: autocast's, if it is on.
            None: each weight's own.

    Returns:
        The number of layers that have a copy.

    Raises:
        ConfigError: the model is compiled, and its layers would not use the copies.
    """
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise ConfigError("prepack: compiled layers would not use packed weights; choose one")
    model.eval()
    if not PACKABLE:
        return 0
    copies: dict[nn.Module, PackedLinear] = {}  # a layer may stand in several places
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            # Other subclasses may multiply in their own way.
            if not isinstance(child, nn.Linear) or type(child) not in (nn.Linear, Linear):
                continue
            packed_dtype = dtype or child.weight.dtype
            if packed_dtype not in FORMATS or child.weight.device.type != "cpu":
                continue
            if child not in copies:
                copies[child] = PackedLinear.of(child, packed_dtype)
            setattr(parent, name, copies[child])
    return len(copies)
