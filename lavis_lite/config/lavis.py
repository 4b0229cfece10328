"""Configs in LAVIS's own format, told from ours, with what to write in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_lite import registry
from lavis_lite.errors import ConfigError, suggest


def refuse_lavis(tree: Mapping[str, Any], file: str) -> None:
    """Say of a config of LAVIS what it is, and how ours begins.

    Raises:
        ConfigError: it has ``model: {arch: ...}``, ``run: {task: ...}`` and no ``runner``.
    """
    model, run = _section(tree, "model"), _section(tree, "run")
    signs = [
        sign
        for sign, there in (
            ("model.arch", "arch" in model),
            ("run.task", "task" in run),
            ("datasets", isinstance(tree.get("datasets"), dict)),
        )
        if there
    ]
    if "runner" in tree or not {"model.arch", "run.task", "datasets"}.intersection(signs):
        return
    lines = [
        f"{file}: this is a config of LAVIS ({', '.join(signs)}), not of lavis_lite; in its place:",
        f"  runner: {{name: {'evaluate' if run.get('evaluate') is True else 'train'}}}",
    ]
    if "arch" in model:
        lines.append(f"  model: {_model(model)}")
    if isinstance(datasets := tree.get("datasets"), dict) and datasets:
        named = ", ".join(f"{{name: {name}, split: train}}" for name in datasets)
        lines.append(f"  data: {{train: [{named}], batch_size: {run.get('batch_size_train', 32)}}}")
        lines += [f"    ({name}:{near})" for name in datasets if (near := _near_dataset(name))]
    lines.append(f"  run: {{output_dir: {run.get('output_dir', 'output/name')}, max_steps: ...}}")
    if "task" in run:
        lines.append("  evaluate: what LAVIS's run.task does; `lavis-lite list --kind metric`")
    lines.append("`lavis-lite list configs` lists whole ones to begin with (`_base_:`)")
    raise ConfigError("\n".join(lines))


def _section(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _model(model: Mapping[str, Any]) -> str:
    """Our spelling of LAVIS's model section."""
    name, type_ = str(model["arch"]), model.get("model_type")
    known = registry.names("model")
    spelled = f"{{name: {name}" + (f", type: {type_}}}" if type_ else "}")
    return spelled if name in known else f"{spelled}  # no such model.{suggest(name, known)}"


def _near_dataset(name: str) -> str:
    """A hint for a dataset that is not called so here."""
    known = registry.names("dataset")
    return "" if name in known else f" no such dataset.{suggest(name, known)}"
