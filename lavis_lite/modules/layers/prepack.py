"""Weights laid out once as the CPU multiplies fastest, for inference: oneDNN's packed matrices.

oneDNN reorders a matrix each time before it multiplies by it. With few rows, as when text is
written, that is most of the work.
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
    """A linear layer with a packed copy of its weight, for one number format.

    The copy is used without gradients, on the CPU, where the products have its format (that of
    autocast, if that is on), and as long as the weight is the one that was copied. It is dropped
    when the layer begins to train: fused optimizers and edits of ``weight.data`` leave no trace
    that could be looked for.
    """

    _packed: Tensor | None = None
    _copied: tuple[int, int]  # address and version of the weight that was copied

    @classmethod
    def of(cls, layer: nn.Linear, dtype: torch.dtype) -> PackedLinear:
        """A layer of the same parameters, in evaluation mode."""
        packed = cls(layer.in_features, layer.out_features, device="meta").eval()
        packed.weight, packed.bias = layer.weight, layer.bias
        weight = layer.weight.detach().to(dtype).contiguous()
        packed._packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        packed._copied = _identity(layer.weight)
        return packed

    def train(self, mode: bool = True) -> PackedLinear:
        """Training mode drops the copy."""
        if mode:
            self._packed = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., width): by the copy where it holds, else as ``nn.Linear`` does."""
        product = self._product(x, "none", "")
        return super().forward(x) if product is None else product

    def gelu(self, x: Tensor) -> Tensor:
        """The same with a GELU, which the product applies before it writes."""
        product = self._product(x, "gelu", "none")  # exact, not by tanh
        return F.gelu(super().forward(x)) if product is None else product

    def _product(self, x: Tensor, activation: str, algorithm: str) -> Tensor | None:
        """None where the copy does not hold."""
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
        """Without the copy, which can be neither pickled nor deep-copied."""
        return {**self.__dict__, "_packed": None}


def _identity(weight: Tensor) -> tuple[int, int]:
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def is_packed(module: nn.Module) -> bool:
    """Whether a layer has a packed copy of its weight."""
    return isinstance(module, PackedLinear) and module._packed is not None


def prepack(model: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Give every ``nn.Linear`` of a model a packed copy of its weight, for inference; in place.

    The model goes to evaluation mode. Parameters, their names and ``state_dict`` stay. Results
    differ by rounding (the sums run in another order). Costs the memory of one more copy of these
    weights, in ``dtype``.

    Args:
        model: on the CPU; elsewhere, and where torch comes without oneDNN, nothing happens.
        dtype: fp32 or bf16, the format that forward passes multiply in: that of autocast where
            they run in one. None: each weight's own.

    Returns:
        How many layers have a copy.

    Raises:
        ConfigError: a model that is compiled: its layers would not use them.
    """
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise ConfigError("prepack: compiled layers would not use packed weights; choose one")
    model.eval()
    if not PACKABLE:
        return 0
    copies: dict[nn.Module, PackedLinear] = {}  # a layer may stand in several places
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            # Subclasses of others multiply in ways of their own.
            if not isinstance(child, nn.Linear) or type(child) not in (nn.Linear, Linear):
                continue
            wanted = dtype or child.weight.dtype
            if wanted not in FORMATS or child.weight.device.type != "cpu":
                continue
            if child not in copies:
                copies[child] = PackedLinear.of(child, wanted)
            setattr(parent, name, copies[child])
    return len(copies)
