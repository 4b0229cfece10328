"""Weights in the names of the package ``efficientnet_pytorch`` and its descendants, in timm's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from lavis_lite.errors import CheckpointError

_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_EXPANDING = {
    **_SQUEEZE,
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {
    **_SQUEEZE,
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def is_efficientnet_pytorch(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether weights have the names of ``efficientnet_pytorch``."""
    return {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight"} <= weights.keys()


def in_timms_names(
    weights: Mapping[str, Tensor], model: nn.Module, source: str
) -> dict[str, Tensor]:
    """Return weights of ``efficientnet_pytorch`` under the names of timm's EfficientNet.

    Args:
        weights: under the names ``_conv_stem``, ``_blocks.N._depthwise_conv`` and so on.
        model: the timm model, whose stages divide the blocks.
        source: of the weights, for messages.

    Raises:
        CheckpointError: a model of another family, or with another number of blocks.
    """
    blocks = [
        f"blocks.{stage}.{place}"
        for stage, layers in enumerate(getattr(model, "blocks", ()))
        for place, _ in enumerate(layers if isinstance(layers, nn.Sequential) else ())
    ]
    found = {int(match[1]) for key in weights if (match := _BLOCK.fullmatch(key))}
    if found != set(range(len(blocks))):
        raise CheckpointError(
            f"{source}: weights of an EfficientNet of {len(found)} blocks, in the names of "
            f"efficientnet_pytorch; {type(model).__name__} has {len(blocks)} such blocks. The file "
            "efficientnet-lite0-*.pth goes with `vision: {name: timm/tf_efficientnet_lite0}`"
        )
    renamed = {}
    for key, weight in weights.items():
        if match := _BLOCK.fullmatch(key):
            number, part, leaf = match.groups()
            expands = f"_blocks.{number}._expand_conv.weight" in weights
            name = (_EXPANDING if expands else _SEPARABLE).get(part, part)
            renamed[f"{blocks[int(number)]}.{name}.{leaf}"] = weight
        else:
            part, _, leaf = key.partition(".")
            renamed[f"{_ENDS.get(part, part)}.{leaf}"] = weight
    return renamed
