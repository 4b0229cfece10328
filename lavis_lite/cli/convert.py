"""``lavis-lite convert``: weights as safetensors, or their model as a folder, for us or others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavis_lite.config.overrides import parse_overrides
from lavis_lite.errors import ConfigError
from lavis_lite.io.redaction import redacted

FORMATS = ("safetensors", "folder", "transformers")


def convert(
    source: str,
    target: str | Path,
    *,
    model: str | None = None,
    to: str = "safetensors",
    overrides: Sequence[str] = (),
) -> str:
    """Write weights, or the model that they are loaded into, in another format.

    Args:
        source: as of ``read_weights``; with a model also ``released``.
        target: a file ``.safetensors``, else a folder; must not exist.
        model: ``name`` or ``name.type`` that the weights are loaded into on the way, strictly, so
            that they come out with its keys, without what it does not have. By default a
            safetensors file gets the keys of the source, and a folder is of the model that the
            source names: a run, or a folder of ``save_pretrained``.
        to: ``safetensors``; ``folder``, as ``save_pretrained`` writes it; ``transformers``.
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
    if to == "safetensors" and model is None:
        if overrides:
            raise ConfigError(f"{overrides[0]}: needs --model NAME[.TYPE], whose argument it is")
        return _copy(source, target)
    from lavis_lite.models.zoo import create_model

    built: Any = create_model(model, checkpoint=source, **parse_overrides(overrides))
    report = f"{source} -> {type(built).__name__}: {built.load_report}"
    return f"{report}\n{_write(built, target, to)}"


def _copy(source: str, target: Path) -> str:
    from lavis_lite.checkpoint.weights import read_weights, save_weights
    from lavis_lite.registry.weight_cards import known_digest

    weights = read_weights(source, known_digest(source))
    save_weights(weights, target, {"source": redacted(source)})
    return f"wrote {target}: {len(weights)} tensors under their own keys"


def _write(built: Any, target: Path, to: str) -> str:
    name = built.card["name"]
    if to == "safetensors":
        from lavis_lite.checkpoint.weights import save_weights

        source = redacted(built.card["checkpoint"])
        save_weights(built, target, {"source": source, "model": name})
        return f"wrote {target}"
    write = getattr(built, "save_pretrained" if to == "folder" else "save_transformers", None)
    if write is None:
        raise ConfigError(f"{name}: this model cannot be written as {to}")
    write(target)
    if to == "folder":
        return f"wrote {target}: load it with load_model(checkpoint={str(target)!r})"
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    return f"wrote {target}: load it with transformers.{config['architectures'][0]}"
