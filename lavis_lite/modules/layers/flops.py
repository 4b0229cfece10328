"""Floating-point operations of whatever runs: loops, attention and backward passes included.

Operators are counted as torch dispatches them, by their shapes, so a run on the device ``meta``
counts as much as a real one. torch's own counter does that; the formulas here are for kernels that
it passes over (attention on a CPU or MPS, oneDNN, vectors), and for those that it counts otherwise
than by the mathematics: gradients of grouped convolutions as if they were dense, and gradients of
fused attention with the scores that a kernel computes a second time to save memory.

Two operations per multiply-add of a matrix product, a convolution or an attention; additions,
activations, norms and the softmax are none. A mask saves nothing: all scores are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# Kernels of torch.nn.functional.scaled_dot_product_attention; where none of them fits, it is
# composed of matrix products.
ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """Return what a run returns, and its operations: two per multiply-add.

    What compiled code, loader threads and other processes compute is not seen.
    """
    with _without_fused_layers(), FlopCounterMode(display=False, custom_mapping=_more()) as counter:
        result = run()
    return result, int(counter.get_total_flops())


def linear_operations(rows: torch.Size, weight: torch.Size, *rest: object, **named: object) -> int:
    """Return those of (..., D) rows times a matrix (width, D)."""
    return 2 * math.prod(rows) * weight[0]


def vector_operations(matrix: torch.Size, *rest: object, **named: object) -> int:
    """Return those of a matrix (M, D), or a vector (D,), times a vector (D,)."""
    return 2 * math.prod(matrix)


def added_vector_operations(
    sum: torch.Size, matrix: torch.Size, *rest: object, **named: object
) -> int:
    """Return those of a matrix (M, D) times a vector (D,), to which something is added."""
    return vector_operations(matrix)


def attention_operations(
    query: torch.Size, key: torch.Size, value: torch.Size, *rest: object, **named: object
) -> int:
    """Return those of queries (..., L, D), keys (..., S, D) and values (..., S, V).

    Keys and values may have fewer heads than the queries, which then share them.
    """
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_gradient_operations(
    gradient: torch.Size,
    query: torch.Size,
    key: torch.Size,
    value: torch.Size,
    *rest: object,
    **named: object,
) -> int:
    """Return those of the gradients of queries, keys and values: two products for each product."""
    return 2 * attention_operations(query, key, value)


def convolution_gradient_operations(
    gradient: torch.Size,
    input: torch.Size,
    weight: torch.Size,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
    output_mask: Sequence[bool],
    **named: object,
) -> int:
    """Return those of the gradients of input and weight that ``output_mask`` asks for.

    Each has as many as the convolution: every weight (of shape (out, in / groups, ...)) meets every
    position of the output once; of a transposed convolution, every position of its input.
    """
    positions = input if transposed else gradient
    each = 2 * positions[0] * math.prod(positions[2:]) * math.prod(weight)
    return each * sum(output_mask[:2])


def _more() -> dict[Any, Callable[..., int]]:
    """Return the formulas by operator, for operators that this torch has."""
    aten = torch.ops.aten
    backward = tuple(f"{name}_backward" for name in ATTENTION)
    formulas: dict[Any, Callable[..., int]] = {
        aten.mv: vector_operations,
        aten.dot: vector_operations,
        aten.addmv: added_vector_operations,
        aten.convolution_backward: convolution_gradient_operations,
    }
    formulas |= {getattr(aten, name, None): attention_operations for name in ATTENTION}
    formulas |= {getattr(aten, name, None): attention_gradient_operations for name in backward}
    formulas[getattr(torch.ops.mkldnn, "_linear_pointwise", None)] = linear_operations
    formulas.pop(None, None)
    return formulas


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    """Have torch's own attention and encoder layers compute by operators that can be counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
