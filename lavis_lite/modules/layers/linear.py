"""A linear layer that is fast in text decoding, where few rows meet a large matrix on the CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# With one row, either library reads the matrix once; beyond a few hundred rows both are as fast.
ROWS = range(2, 257)
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """``nn.Linear`` that multiplies with oneDNN when no gradient is needed; equal within rounding.

    torch gives fp32 products on the CPU to MKL, which reads the whole matrix once for every two or
    three rows, the beams of an image; oneDNN reads it once for all of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        if fits_onednn(x, self.weight):
            return torch.ops.mkldnn._linear_pointwise(
                x, self.weight, self.bias, "none", [], ""
            )  # (..., width)
        return super().forward(x)  # (..., width)


def fits_onednn(x: Tensor, weight: Tensor) -> bool:
    """Tell whether oneDNN multiplies rows (..., D) by a matrix (width, D) faster than MKL."""
    return (
        ONEDNN
        and not torch.compiler.is_compiling()
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() // x.shape[-1] in ROWS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # what is traced may run where there is no oneDNN
    )


def gelu_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the GELU of a layer's output; a layer with ``gelu`` fuses it into the product."""
    fused = getattr(layer, "gelu", None)
    return F.gelu(layer(x)) if fused is None else fused(x)  # (..., width)
