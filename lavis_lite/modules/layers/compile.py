"""``torch.compile``, layer by layer: the code of one layer serves all layers like it.

A tower of twelve equal layers is compiled in the time of one, because weights are inputs of the
code. The parts between the layers (embeddings, projections, heads, losses) are not compiled.
"""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.prepack import is_packed
from lavis_lite.modules.layers.tower_layers import layers_of, towers

# torch counts compiled variants per nn.Module class and stops at 8. All layers together need more:
# with and without gradients, image, mask and cache, in training and evaluation.
MOST_VARIANTS = 64


def compile_towers(model: nn.Module, where: str = "compile") -> list[nn.Module]:
    """``torch.compile`` the layers of a model's towers in place; names and numbers stay.

    Towers are those that ``vision_towers`` and ``text_towers`` name, and their momentum copies. A
    tower without a list of layers is compiled as a whole, and so is a model without towers. Text
    layers are compiled once for any number and length of texts. Code is compiled when a layer
    first runs; hooks that are registered later do not run. Copies and pickles of the model are not
    compiled.

    Args:
        model: the model, on the device where it will run.
        where: the setting that asks for it, for errors.

    Returns:
        The modules that are compiled.

    Raises:
        ConfigError: no C++ compiler where one is needed, or weights that are packed.
    """
    check_compiler(next(model.parameters()).device, where)
    if any(is_packed(module) for module in model.modules()):
        raise ConfigError(
            f"{where}: compiled layers would not use the packed weights of `prepack`; choose one "
            "of the two (on the CPU, writing is faster with packed weights)"
        )
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_VARIANTS)
    parts = _parts(model)
    for part, dynamic in parts.items():
        part.compile(dynamic=dynamic)
    return list(parts)


def _parts(model: nn.Module) -> dict[nn.Module, bool | None]:
    """Return the modules to compile -> ``dynamic`` of ``torch.compile`` (None: automatic)."""
    parts: dict[nn.Module, bool | None] = {}
    for modality in ("vision", "text"):
        online = towers(model, modality)
        copies = [getattr(model, f"{name}_m", None) for name in online]
        for tower in [*online.values(), *(copy for copy in copies if isinstance(copy, nn.Module))]:
            dynamic = True if modality == "text" else None
            parts |= dict.fromkeys(layers_of(tower) or [tower], dynamic)
    return parts or {model: None}


def check_compiler(device: torch.device, where: str) -> None:
    """Raise ConfigError now if torch.compile would fail at step one for lack of a C++ compiler."""
    names = [os.environ.get("CXX", "g++"), "g++", "clang++"]
    if device.type == "cpu" and not any(shutil.which(name) for name in names):
        raise ConfigError(
            f"{where}: on the CPU it needs a C++ compiler, and none of {', '.join(names[1:])} "
            f"is found; install one, name it in CXX, or use {where}: false"
        )
