"""Parts of a model that a run does not train."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterator, Sequence

from torch import nn

from lavis_lite.errors import ConfigError, suggest
from lavis_lite.modules.layers.modes import hold_in_evaluation

log = logging.getLogger(__name__)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training; modules that are frozen whole stay in evaluation mode.

    So neither an optimizer nor dropout nor running statistics touch them. A parameter that frozen
    and other parts share (tied) is frozen.

    Args:
        model: whose parameters lose ``requires_grad``.
        patterns: names of modules or parameters (``visual_encoder``), also shell patterns
            (``visual_encoder.blocks.[0-5]``).

    Raises:
        ConfigError: a pattern that fits nothing, or nothing left to train.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    frozen: set[int] = set()
    for index, pattern in enumerate(patterns):
        fitting = [p for name, p in named.items() if fits(name, pattern)]
        if not fitting:
            modules = [name for name, _ in model.named_modules() if name]
            parts = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(
                f"optim.freeze[{index}]: no part is called {pattern!r}."
                f"{suggest(pattern, [*modules, *named])} Parts: {parts}"
            )
        frozen.update(id(p) for p in fitting)
    for parameter in model.parameters():
        if id(parameter) in frozen:
            parameter.requires_grad_(False)
    if patterns and not any(p.requires_grad for p in model.parameters()):
        raise ConfigError("optim.freeze: leaves nothing to train")
    for module in _frozen_whole(model, frozen):
        hold_in_evaluation(module)
    if patterns:
        count = sum(p.numel() for p in model.parameters() if id(p) in frozen)
        log.info("%.1f M parameters are frozen", count / 1e6)


def fits(name: str, pattern: str) -> bool:
    """Tell whether a pattern means a parameter: by its own name, or that of a module around it."""
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return any(fnmatch.fnmatchcase(prefix, pattern) for prefix in prefixes)


def _frozen_whole(module: nn.Module, frozen: set[int]) -> Iterator[nn.Module]:
    """Yield the outermost modules whose parameters are all frozen."""
    parameters = list(module.parameters())
    if parameters and all(id(p) in frozen for p in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen_whole(child, frozen)
