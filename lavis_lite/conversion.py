"""``lavis-lite convert``: weights of any source as safetensors, or as a folder for others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.config.merge import parse_overrides
from lavis_lite.errors import ConfigError

FORMATS = ("safetensors", "transformers")


def convert(
    source: str,
    target: str | Path,
    *,
    model: str | None = None,
    to: str = "safetensors",
    overrides: Sequence[str] = (),
) -> str:
    """Write weights in another format.

    Args:
        source: as of ``read_weights``; with a model also ``released``.
        target: a file ``.safetensors``, or the folder for ``transformers``; must not exist.
        model: ``name`` or ``name.type`` that the weights are loaded into on the way, strictly, so
            that they come out with its keys, without what it does not have. Without a model they
            keep their own keys.
        to: one of ``FORMATS``.
        overrides: ``key=value``, arguments of the model's builder.

    Returns:
        What was done, for people.

    Raises:
        ConfigError: the target exists or is misnamed; the model cannot be written so.
        CheckpointError, DownloadError: the source is not there, or does not fit the model.
    """
    target = Path(target)
    if target.exists():
        raise ConfigError(f"{target}: is there already; name another target, or remove it")
    if to == "safetensors" and target.suffix != ".safetensors":
        raise ConfigError(f"{target}: the name of a safetensors file ends with .safetensors")
    if model is None and (to != "safetensors" or overrides):
        wanted = "overrides need" if overrides else f"--to {to} needs"
        raise ConfigError(f"{wanted} --model NAME[.TYPE], the model that the weights are of")
    if model is None:
        return _copy(source, target)
    from lavis_lite.zoo import create_model

    built: Any = create_model(model, checkpoint=source, **parse_overrides(overrides))
    report = f"{source} -> {model}: {built.load_report}"
    if to == "safetensors":
        from lavis_lite.weights import save_weights

        save_weights(built, target, {"source": source, "model": model})
        return f"{report}\nwrote {target}"
    return f"{report}\n{_write_transformers(built, model, target)}"


def _copy(source: str, target: Path) -> str:
    from lavis_lite.cards import known_digest
    from lavis_lite.weights import read_weights, save_weights

    weights = read_weights(source, known_digest(source))
    save_weights(weights, target, {"source": source})
    return f"wrote {target}: {len(weights)} tensors under their own keys"


def _write_transformers(built: Any, model: str, target: Path) -> str:
    write = getattr(built, "save_transformers", None)
    if write is None:
        raise ConfigError(f"{model}: transformers has no such model")
    write(target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    return f"wrote {target}: load it with transformers.{config['architectures'][0]}"
