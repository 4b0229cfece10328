"""The layers of a tower, found by its structure: what to recompute, and how deep a weight lies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from lavis_lite.errors import ConfigError

Modality = Literal["vision", "text"]
Keep = Literal["nothing", "products"]

_ATEN = torch.ops.aten
# What costs most of a layer's time; the rest is norms, activation functions, dropout and sums.
PRODUCTS = {
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default),
    _ATEN.convolution.default,
}
ATTENTIONS = {  # and the place of the dropout among their arguments
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 3,
    _ATEN._scaled_dot_product_flash_attention.default: 3,
    _ATEN._scaled_dot_product_efficient_attention.default: 5,
    _ATEN._scaled_dot_product_cudnn_attention.default: 5,
}


def towers(model: nn.Module, modality: Modality) -> dict[str, nn.Module]:
    """A model's towers of one modality by name, as its ``vision_towers``, ``text_towers`` list."""
    names = getattr(model, f"{modality}_towers", ())
    found = {name: getattr(model, name, None) for name in names}
    return {name: tower for name, tower in found.items() if isinstance(tower, nn.Module)}


def layers_of(tower: nn.Module) -> list[nn.Module]:
    """The layers of a tower, the first one first; empty where it has none that can be told.

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
    """Gradient checkpointing: the last layers of a modality's towers forget their activations.

    Their forward pass runs again in the backward pass, with the same dropout: memory for time, the
    same numbers. Names of weights stay as they are. (Under autocast, where products are kept, a
    weight that is read several times adds up its gradients in fp32 instead of half precision.)

    Args:
        model: with ``vision_towers`` and ``text_towers``.
        modality: which of its towers.
        num_layers: layers per tower, counted from its end; -1 is all, 0 none.
        keep: what of such a layer is not computed again: ``nothing``, or its matrix ``products``
            and attention, so that only what is cheap to compute is.

    Raises:
        ConfigError: no such tower, no layers to be told in it, or layers that a second forward pass
            would change.
    """
    if num_layers == 0:
        return
    where = f"run.gradient_checkpointing.{modality}"
    found = towers(model, modality)
    if not found:
        raise ConfigError(f"{where}: {type(model).__name__} names no {modality} tower")
    for name, tower in found.items():
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
        # In evaluation mode somebody wants gradients of a few samples, or their attention maps.
        if not (layer.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        if keep == "products":
            return _recompute_rest(layer, forward, *args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    layer.forward = forward_again


def _recompute_rest(
    layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """A layer's forward pass whose matrix products, and nothing else, stay for the backward."""
    device = next((parameter.device.type for parameter in layer.parameters()), "cpu")

    def run(*args: Any, **kwargs: Any) -> Any:
        # Operators are told apart by their order. With a cache of cast weights there would be fewer
        # the first time, where another tower has cast a weight that the two share.
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        with torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
            return forward(*args, **kwargs)

    contexts = functools.partial(create_selective_checkpoint_contexts, keep_products)
    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def keep_products(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """What stays of a layer whose matrix products and attention are not computed again.

    Attention that drops draws numbers, which the second pass has to draw again: it is recomputed.
    """
    place = ATTENTIONS.get(operator)
    if place is None:
        kept = operator in PRODUCTS
    else:
        dropout = args[place] if len(args) > place else kwargs.get("dropout_p", 0.0)
        kept = dropout == 0.0
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def layer_depths(tower: nn.Module) -> tuple[dict[int, int], int]:
    """How many layers lie between each parameter of a tower and its end.

    Returns:
        ``id(parameter)`` -> 0 for what comes after the layers, 1 for the last layer, and so on;
        what comes before them is one deeper than the first. A parameter with several names (tied)
        has the depth of the first. And the number of layers, 0 where there are none to be told:
        then all depths are 0.
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
