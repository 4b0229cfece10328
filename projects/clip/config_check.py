"""A check of the settings in a transformers ``config.json`` that weight shapes don't show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lavis_lite.errors import CheckpointError

# Values that a config.json leaves out; older files leave out most of them.
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "clip": {
        "vision_config": {"num_attention_heads": 12},
        "text_config": {"num_attention_heads": 8},
        "": {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    },
    "siglip": {
        "vision_config": {"num_attention_heads": 12},
        "text_config": {"num_attention_heads": 12},
        "": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    },
}
# An activation of timm or of our text tower -> its name in transformers.
ACTIVATIONS = {
    "QuickGELU": "quick_gelu",
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
}
SECTIONS = {"vision_config": "visual_encoder", "text_config": "text_encoder"}


def check(model: nn.Module, config: Mapping[str, Any], source: str) -> None:
    """Compare a model with the ``config.json`` of the folder that its weights come from.

    With other heads, another activation or another epsilon the same weights compute other numbers.

    Raises:
        CheckpointError: a CLIP or SigLIP of transformers that differs, with all differences.
    """
    kind = config.get("model_type")
    if kind in DEFAULTS and (wrong := list(differences(model, config, DEFAULTS[kind]))):
        raise CheckpointError(
            f"{source}: by its config.json {'; '.join(wrong)}: the same weights mean something "
            "else. Build the model so; or, where the config is wrong, give the file of weights "
            "instead of its folder"
        )


def differences(
    model: nn.Module, config: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield the settings that differ, in words."""
    for section, tower in SECTIONS.items():
        published = {**defaults[""], **defaults[section], **(config.get(section) or {})}
        for key, ours in settings(getattr(model, tower)).items():
            if published[key] != ours:
                yield f"{section}.{key} is {published[key]!r}, of this model {ours!r}"


def settings(tower: nn.Module) -> dict[str, Any]:
    """Return a tower's heads, activation and epsilon under transformers' names, if it has them."""
    blocks = getattr(tower, "blocks", None)
    first = blocks[0] if blocks else None
    num_heads = getattr(getattr(first, "attn", None), "num_heads", None)
    mlp = getattr(first, "mlp", None)
    activation = getattr(mlp, "act", None) or getattr(mlp, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    eps = getattr(getattr(tower, "norm", None), "eps", None)
    values = {
        "num_attention_heads": num_heads,
        "hidden_act": ACTIVATIONS.get(name),
        "layer_norm_eps": eps,
    }
    return {key: value for key, value in values.items() if value is not None}
