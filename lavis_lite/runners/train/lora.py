"""LoRA: small matrices beside frozen layers, trained in their place (by peft).

Reference: https://arxiv.org/abs/2106.09685.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite.config.schema import LoraConfig
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.modules.layers.tower_layers import layers_of, towers
from lavis_lite.runners.train.freeze import fits

log = logging.getLogger(__name__)
NAME = "default"  # peft's name of a layer's only adapter


class Adapters:
    """The adapters of a model, which are put in when it is made.

    What is not adapted or named in ``config.train`` is frozen. A momentum copy gets adapters too,
    equal ones, so that it can follow.

    Args:
        model: changed in place; its adapted layers become peft's, around the original ones.
        config: rank, scale, and where.

    Raises:
        ConfigError: peft is not installed; a pattern fits nothing; nothing to adapt.
    """

    def __init__(self, model: nn.Module, config: LoraConfig) -> None:
        self.model = model
        self.names = targets(model, config.target)
        whole = {id(p) for p in _fitting(model, config.train, "train")}
        _inject(model, [*self.names, *_copied(model, self.names)], config)
        for name, parameter in model.named_parameters():
            is_adapter = ".lora_" in name and name.startswith(tuple(f"{n}." for n in self.names))
            parameter.requires_grad_(is_adapter or id(parameter) in whole)
        for name in self.names:
            if twin := _twin(model, name):
                model.get_submodule(twin).load_state_dict(model.get_submodule(name).state_dict())
        self._layers = _adapted(model)
        self._looked = False
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        log.info("%d layers have adapters: %.2f M are trained", len(self.names), trained / 1e6)

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merge the adapters into the weights in this context; the plain layers stand in place.

        Layers, names and shapes are those of the plain model: what is saved here loads anywhere.
        """
        kept = {name: layer.get_base_layer().weight.data for name, layer in self._layers.items()}
        with torch.no_grad(), self.removed():
            for name, layer in self._layers.items():
                base = layer.get_base_layer()
                base.weight.data = kept[name] + layer.get_delta_weight(NAME).to(kept[name])
            try:
                yield
            finally:
                for name, layer in self._layers.items():
                    layer.get_base_layer().weight.data = kept[name]

    @contextmanager
    def removed(self) -> Iterator[None]:
        """Put the original layers back into their places in this context, without adapters."""
        for name, layer in self._layers.items():
            self.model.set_submodule(name, layer.get_base_layer())
        try:
            yield
        finally:
            for name, layer in self._layers.items():
                self.model.set_submodule(name, layer)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return what the merged weights do not tell: the original weights, and the adapters."""
        return {
            name: {k: v for k, v in layer.state_dict().items() if not k.endswith(".bias")}
            for name, layer in self._layers.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take up what ``state_dict`` returned; biases come with the model's weights."""
        for name, layer in self._layers.items():
            layer.load_state_dict(state[name], strict=False)

    def look_after_backward(self) -> None:
        """Once, after the first backward pass: name adapters that took no part in it.

        A layer whose weight is used without calling it passes its adapter by.
        """
        if self._looked:
            return
        self._looked = True
        idle = [name for name in self.names if _is_idle(self._layers[name])]
        if idle:
            log.warning(
                "optim.lora: %d adapters take no part, as their layer is not called or no loss "
                "needs it: %s; leave them out of optim.lora.target",
                len(idle),
                ", ".join(idle[:5]),
            )


def targets(model: nn.Module, patterns: list[str]) -> list[str]:
    """Return the layers that get adapters: those meant by ``patterns``, or those in the towers.

    In a tower these are its linear layers, GPT's sort included; its convolutions where it has no
    linear ones. A momentum copy's are left out: they follow.

    Raises:
        ConfigError: a pattern that fits no such layer; a tower with nothing to adapt.
    """
    copies = tuple(f"{name}_m." for name in getattr(model, "momentum_pairs", ()))
    own = {
        name: module
        for name, module in model.named_modules()
        if not f"{name}.".startswith(copies or ("\0",))
    }
    able = {name: module for name, module in own.items() if _is_adaptable(module)}
    for index, pattern in enumerate(patterns):
        if not any(fits(name, pattern) for name in able):
            raise ConfigError(f"optim.lora.target[{index}]: {_misses(pattern, own, able)}")
    if patterns:
        return [name for name in able if any(fits(name, pattern) for pattern in patterns)]
    found = {**towers(model, "vision"), **towers(model, "text")}
    if not found:
        raise ConfigError(
            f"optim.lora: {type(model).__name__} has no towers; name what to adapt in "
            "optim.lora.target"
        )
    chosen = {id(m) for name, tower in found.items() for m in _of_tower(name, tower)}
    return [name for name, module in able.items() if id(module) in chosen]


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, its weight transposed

    return isinstance(module, nn.Linear | Conv1D)


def _is_adaptable(module: nn.Module) -> bool:
    """Tell whether peft can adapt a layer and merge the adapter; not a convolution in groups."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return _is_linear(module) or isinstance(module, nn.Embedding)


def _of_tower(name: str, tower: nn.Module) -> list[nn.Module]:
    """Return the layers of a tower that are adapted by default.

    Raises:
        ConfigError: nothing: it would be frozen without a word.
    """
    inside = [m for layer in layers_of(tower) for m in layer.modules() if _is_adaptable(m)]
    linear = [m for m in inside if _is_linear(m)]
    chosen = linear or [m for m in inside if isinstance(m, nn.Conv2d)]
    if not chosen:
        raise ConfigError(
            f"optim.lora: {name} ({type(tower).__name__}) has no linear or convolutional layers in "
            "a list of layers, so it would be frozen; name all that is to be adapted in "
            "optim.lora.target"
        )
    return chosen


def _misses(pattern: str, own: dict[str, nn.Module], able: dict[str, nn.Module]) -> str:
    """Say why a pattern matches no layer that can be adapted."""
    for name, module in own.items():
        if isinstance(module, nn.Conv2d) and fits(name, pattern):
            return (
                f"{name} is a convolution in {module.groups} groups, whose adapter cannot be "
                "merged; leave it out, or train it whole (optim.lora.train)"
            )
    return (
        f"no layer is called {pattern!r}.{suggest(pattern, able)} Give names of modules with "
        "linear, convolutional or embedding layers, or shell patterns"
    )


def _fitting(model: nn.Module, patterns: list[str], key: str) -> list[nn.Parameter]:
    named = dict(model.named_parameters(remove_duplicate=False))
    for index, pattern in enumerate(patterns):
        if not any(fits(name, pattern) for name in named):
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"optim.lora.{key}[{index}]: no part is called {pattern!r}."
                f"{suggest(pattern, [n for n, _ in model.named_modules()])} Parts: {parts}"
            )
    return [p for name, p in named.items() if any(fits(name, pattern) for pattern in patterns)]


def _inject(model: nn.Module, names: list[str], config: LoraConfig) -> None:
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f"optim.lora needs peft ({error}): pip install 'lavis_lite[peft]'"
        ) from None
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=names,
    )
    with warnings.catch_warnings():  # peft sets it for each layer as it must be, and says so
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)
        inject_adapter_in_model(settings, model)


def _twin(model: nn.Module, name: str) -> str | None:
    """Return the layer of the momentum copy that follows a layer."""
    for part in getattr(model, "momentum_pairs", ()):
        if f"{name}.".startswith(f"{part}.") and getattr(model, f"{part}_m", None) is not None:
            return f"{part}_m{name.removeprefix(part)}"
    return None


def _copied(model: nn.Module, names: list[str]) -> list[str]:
    return [twin for name in names if (twin := _twin(model, name))]


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Return the layers with adapters by name, the momentum copy's too."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _is_idle(layer: nn.Module) -> bool:
    parameters = [p for n, p in layer.named_parameters() if "lora_" in n and p.requires_grad]
    return bool(parameters) and all(p.grad is None for p in parameters)
