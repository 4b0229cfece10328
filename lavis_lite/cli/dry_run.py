"""The dry run: a run's resolved config and the table of its model's parameters."""

from __future__ import annotations

import warnings
from typing import Any

from lavis_lite import registry
from lavis_lite.config.loading import load_and_bind
from lavis_lite.config.writing import to_yaml
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.registry.component import NESTED_KINDS, ModelComponent


def describe(config: Any) -> str:
    """The resolved config as YAML, then the model's parameters by module; nothing is trained.

    The model is built without storage: no weights are drawn, read or downloaded. Of a pipeline
    every stage is described. No dataset is opened, and no file is looked for.

    Raises:
        ConfigError: what the runner, or that of a stage, finds wrong before it begins.
    """
    registry.build("runner", config.runner.spec, config=config)
    parts = [to_yaml(config)]
    if getattr(config, "model", None) is not None:
        parts.append(parameter_table(config.model))
    problems = []
    for name, stage in getattr(config, "stages", {}).items():
        try:
            described = describe(load_and_bind(stage.cfg, values=stage.set))
        except (ConfigError, UnknownName) as error:
            problems += [f"stages.{name}: {line}" for line in str(error).splitlines()]
        else:
            parts.append(f"# stage {name}\n{described}")
    if problems:
        raise ConfigError("\n".join(problems))
    return "\n".join(parts)


def parameter_table(model: ModelComponent, depth: int = 2) -> str:
    """Parameters by module, and how many of them are trained."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore uses torch.jit when it is imported
        from fvcore.nn import parameter_count_table

    args = dict(model.args)
    for key in NESTED_KINDS:  # pretrained towers are as large as fresh ones
        if isinstance(spec := args.get(key), dict):
            args[key] = {k: v for k, v in spec.items() if k != "pretrained"}
    with torch.device("meta"):
        built = registry.build("model", {**args, "name": model.name})
    total = sum(p.numel() for p in built.parameters())
    trained = sum(p.numel() for p in built.parameters() if p.requires_grad)
    table = parameter_count_table(built, max_depth=depth)
    return f"{table}\n{total / 1e6:.2f}M parameters, {trained / 1e6:.2f}M of them trained"
