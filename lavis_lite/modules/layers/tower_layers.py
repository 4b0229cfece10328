"""The layers of a tower, found by its structure: activation checkpointing and layer depths."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from lavis_lite.errors import ConfigError

Modality = Literal["vision", "text"]
Keep = Literal["nothing", "products"]

_ATEN = torch.ops.aten
# The products take most of a layer's time; the rest is norms, activations, dropout and sums.
PRODUCTS = {
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default),
    _ATEN.convolution.default,
}
ATTENTIONS = {  # operator -> index of the dropout among its arguments
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 3,
    _ATEN._scaled_dot_product_flash_attention.default: 3,
    _ATEN._scaled_dot_product_efficient_attention.default: 5,
    _ATEN._scaled_dot_product_cudnn_attention.default: 5,
}


def towers(model: nn.Module, modality: Modality) -> dict[str, nn.Module]:
    """Return a model's towers of one modality, those that ``vision_towers`` etc. name."""
    names = getattr(model, f"{modality}_towers", ())
    parts = {name: getattr(model, name, None) for name in names}
    return {name: tower for name, tower in parts.items() if isinstance(tower, nn.Module)}


def layers_of(tower: nn.Module) -> list[nn.Module]:
    """Return the layers of a tower in order; empty if it has no list of layers.

    They are the items of its outermost lists (``nn.Sequential``, ``nn.ModuleList``) of modules of
    one class that have parts of their own: the blocks of a ViT or a ResNet, the layers of a BERT,
    the stages of a Swin.
    """
    return list(_layers(tower))


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        items = list(child.children()) if isinstance(child, nn.Sequential | nn.ModuleList) else []
        is_composed = all(any(True for _ in item.children()) for item in items)
        if items and is_composed and len({type(item) for item in items}) == 1:
            yield from items
        else:
            yield from _layers(child)


def recompute_activations(
    model: nn.Module, modality: Modality, num_layers: int, keep: Keep = "nothing"
) -> None:
    """Turn on activation checkpointing in the last layers of a modality's towers.

    Their forward pass runs again in the backward pass, with the same dropout: it trades time for
    memory and gives the same numbers. Names of weights stay. (Under autocast with ``products``, a
    weight that is used several times sums its gradients in fp32 instead of half precision.)

    Args:
        model: a model with ``vision_towers`` and ``text_towers``.
        modality: the modality of the towers.
        num_layers: layers per tower, counted from its end; -1 is all, 0 none.
        keep: the activations that are stored: ``nothing``, or the results of matrix ``products``
            and attention, so that only cheap operations run again.

    Raises:
        ConfigError: no such tower, a tower without a list of layers, or layers that a second
            forward pass would change.
    """
    if num_layers == 0:
        return
    where = f"run.gradient_checkpointing.{modality}"
    by_name = towers(model, modality)
    if not by_name:
        raise ConfigError(f"{where}: {type(model).__name__} names no {modality} tower")
    for name, tower in by_name.items():
        layers = layers_of(tower)
        if not layers:
            raise ConfigError(f"{where}: {name} ({type(tower).__name__}) has no list of layers")
        chosen = layers if num_layers < 0 else layers[-num_layers:]
        if counting := [m for layer in chosen for m in layer.modules() if _keeps_statistics(m)]:
            raise ConfigError(
                f"{where}: {name} has running statistics ({type(counting[0]).__name__}), which "
                "a second forward pass would count twice; use 0"
            )
        for layer in chosen:
            _recompute(layer, keep)


def _keeps_statistics(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def _recompute(layer: nn.Module, keep: Keep) -> None:
    """Replace a layer's forward on the object itself: a wrapper would rename its weights."""
    forward = layer.forward

    def forward_again(*args: Any, **kwargs: Any) -> Any:
        # In evaluation mode gradients are for a few samples, or for attention maps.
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        if keep == "products":
            return _recompute_rest(layer, forward, *args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    layer.forward = forward_again


def _recompute_rest(
    layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Run a layer's forward pass, storing only its matrix products for the backward pass."""
    device = next((parameter.device.type for parameter in layer.parameters()), "cpu")

    def run(*args: Any, **kwargs: Any) -> Any:
        # torch matches operators by their order. With autocast's cache of cast weights the first
        # pass would have fewer of them if another tower had already cast a shared weight.
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        with torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
            return forward(*args, **kwargs)

    contexts = functools.partial(create_selective_checkpoint_contexts, keep_products)
    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def keep_products(
    context: object, operator: OpOverload, *args: Any, **kwargs: Any
) -> CheckpointPolicy:
    """Store matrix products and attention of a layer, and recompute all else.

    Attention with dropout is recomputed, because the second pass has to draw the same numbers.
    """
    place = ATTENTIONS.get(operator)
    if place is None:
        kept = operator in PRODUCTS
    else:
        dropout = args[place] if len(args) > place else kwargs.get("dropout_p", 0.0)
        kept = dropout == 0.0
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def layer_depths(tower: nn.Module) -> tuple[dict[int, int], int]:
    """Count the layers between each parameter of a tower and its end.

    Returns:
        ``id(parameter)`` -> 0 for parameters after the layers, 1 for the last layer, and so on;
        those before the layers are one deeper than the first. A parameter with several names
        (tied) has the depth of the first. And the number of layers; if the tower has no list of
        layers, it is 0 and so are all depths.
    """
    layers = layers_of(tower)
    of_layer = {id(p): number for number, layer in enumerate(layers) for p in layer.parameters()}
    depths: dict[int, int] = {}
    seen_layers = not layers
    for parameter in tower.parameters():  # in the order of their definition, ties once
        number = of_layer.get(id(parameter))
        seen_layers |= number is not None
        if number is not None:
            depths[id(parameter)] = len(layers) - number
        else:
            depths[id(parameter)] = 0 if seen_layers else len(layers) + 1
    return depths, len(layers)
