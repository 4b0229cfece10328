"""What a run would do: its resolved config and the table of its model's parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from lavis_lite import config as configs
from lavis_lite import zoo


def describe(config: Any) -> str:
    """The resolved config as YAML, then the model's parameters by module; nothing is trained.

    The model is built without storage: no weights are drawn, read or downloaded.
    """
    parts = [configs.to_yaml(config)]
    if getattr(config, "model", None) is not None:
        parts.append(parameter_table(config))
    return "\n".join(parts)


def parameter_table(config: Any, depth: int = 2) -> str:
    """Parameters by module, and how many of them are trained."""
    import torch
    from fvcore.nn import parameter_count_table

    with torch.device("meta"):
        model = zoo.build_model(dataclasses.replace(config.model, checkpoint=None))
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    table = parameter_count_table(model, max_depth=depth)
    return f"{table}\n{total / 1e6:.2f}M parameters, {trained / 1e6:.2f}M of them trained"
