"""States, masks and contexts: what one method of a model gives and another takes."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.interfaces import ImageContext
from lavis_lite.modules.samples import kind_of

C = TypeVar("C")


def width_of(encoder: nn.Module | None) -> int | None:
    """Return the width D of an encoder's states; None where it does not say."""
    width = getattr(encoder, "width", None)
    return width if isinstance(width, int) else None


def as_states(
    states: object,
    width: int | None,
    name: str,
    dims: str = "B, T, D",
    maker: str = "`encode_text`",
) -> Tensor:
    """Return states as they are, floating point, with as many axes as ``dims``, the last ``width``.

    Args:
        states: the argument.
        width: D; None is any.
        name: of the argument, for messages.
        dims: letters of its axes.
        maker: the method that gives such states.

    Raises:
        ConfigError: anything else.
    """
    if (
        isinstance(states, Tensor)
        and states.is_floating_point()
        and states.ndim == dims.count(",") + 1
        and width in (None, states.shape[-1])
    ):
        return states
    wide = f" with D = {width}" if width else ""
    raise ConfigError(f"{name}: {kind_of(states)}; ({dims}){wide} is expected, as {maker} gives it")


def as_width(states: Tensor, width: int, name: str, maker: str) -> Tensor:
    """Return states (..., D) of any number of axes as they are, floating point.

    Raises:
        ConfigError: anything else.
    """
    numbers = isinstance(states, Tensor) and states.is_floating_point()
    if numbers and states.ndim and states.shape[-1] == width:
        return states
    raise ConfigError(f"{name}: {kind_of(states)}; (..., {width}) is expected, of {maker}")


def as_mask(mask: Tensor, num_rows: int, length: int | None, name: str = "mask") -> Tensor:
    """Return a mask (B, T) as it is.

    Raises:
        ConfigError: no tensor, or one of another shape.
    """
    numbers = isinstance(mask, Tensor) and mask.ndim == 2
    if numbers and len(mask) == num_rows and length in (None, mask.shape[1]):
        return mask
    wanted = f"({num_rows}, {'T' if length is None else length})"
    raise ConfigError(f"{name}: {kind_of(mask)}; {wanted} is expected, 1 at each real token")


def as_context(context: C, num_layers: int, name: str = "image_context") -> C:
    """Return what texts look at as it is: a list with a layer's keys and values each.

    Raises:
        ConfigError: anything else, such as tokens that no layer has projected.
    """
    layers = context if isinstance(context, list | tuple) else ()
    if len(layers) != num_layers or not all(hasattr(layer, "_fields") for layer in layers):
        raise ConfigError(
            f"{name}: {kind_of(context)}; a list of {num_layers} layers' keys and values is "
            "expected, as `image_context(image_tokens)` gives it (`question_context(states)` of "
            "questions)"
        )
    return context


def rows_in(context: ImageContext) -> int:
    """Return the number of rows B of a context: of its first tensor."""
    while not isinstance(context, Tensor):
        context = context[0]
    return len(context)


def as_ids(ids: Tensor, vocabulary: int, name: str) -> Tensor:
    """Return token ids (B, T) as they are.

    Raises:
        ConfigError: no whole numbers, another shape, or an id outside the vocabulary (on the CPU).
    """
    if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.dtype not in (torch.int64, torch.int32):
        raise ConfigError(f"{name}: {kind_of(ids)}; (B, T) token ids are expected, of `tokenize`")
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
        low, high = (int(number) for number in ids.aminmax())
        if low < 0 or high >= vocabulary:
            raise ConfigError(f"{name}: id {low if low < 0 else high}; from 0 to {vocabulary - 1}")
    return ids
