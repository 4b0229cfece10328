"""Weights in published layouts: the parts of a file that a model has, and those that it needs.

Keys are published ones, without the name of the loss that holds a queue.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules import vision

log = logging.getLogger(__name__)

QUEUE = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
_QUEUE_HERE = re.compile(r"losses\.[^.]+\.queue\.")  # where our models keep it


def published(key: str) -> str:
    """Our key, or either spelling of the queue's pointer, as LAVIS's checkpoints spell it."""
    key = _QUEUE_HERE.sub("", key)
    return "queue_ptr" if key == "ptr_queue" else key


def part_of(key: str) -> str:
    """``text_encoder.`` of a key inside of a module; a tensor of its own is its own part."""
    module, dot, _ = key.partition(".")
    return module + dot


def add_momentum_copy(kept: dict[str, Tensor], wanted: dict[str, str]) -> None:
    """Start momentum copies that a file lacks from its online towers.

    Args:
        kept: key -> tensor of the file, added to.
        wanted: the model's keys as published -> as they are.
    """
    in_file = {key.partition(".")[0] for key in kept}
    for key in wanted:
        tower, _, rest = key.partition(".")
        online = f"{tower.removesuffix('_m')}.{rest}"
        if tower.endswith("_m") and tower not in in_file and online in kept:
            kept[key] = kept[online].clone()


def add_queue(kept: dict[str, Tensor], wanted: dict[str, str], own: dict[str, Tensor]) -> None:
    """A queue is whole or new: features and ids of one length; its pointer starts at 0."""
    parts = {name: own[wanted[name]] for name in QUEUE if name in wanted}
    features = [name for name in parts if name != "queue_ptr"]
    fits = all(name in kept and kept[name].shape == parts[name].shape for name in features)
    kept.update({k: v for k, v in parts.items() if not fits or k not in kept})


def start_anew(
    fresh: list[str], kept: dict[str, Tensor], wanted: dict[str, str], own: dict[str, Tensor]
) -> None:
    """Take the model's own weights for what a file of another task lacks, and warn."""
    kept.update({key: own[wanted[key]] for key in fresh})
    if fresh:
        log.warning("the weights are of another task: %d tensors start anew: %s", len(fresh), fresh)


def classifier_of(wanted: dict[str, str], kept: dict[str, Tensor]) -> list[str]:
    """Keys of a classifier's head that the model has and the file has not."""
    return [key for key in wanted if key.startswith("cls_head.") and key not in kept]


def resample_positions(kept: dict[str, Tensor], model: Any) -> None:
    """Fit the vision encoders' position embeddings to the model's image size."""
    for name in ("visual_encoder", "visual_encoder_m"):
        key = f"{name}.pos_embed"
        encoder = getattr(model, name, None)
        wanted = getattr(encoder, "pos_embed", None)
        if encoder is not None and key in kept and wanted is not None:
            prefix, grid = getattr(encoder, "num_prefix_tokens", 1), vision.grid_of(encoder)
            kept[key] = vision.interpolate_pos_embed(kept[key], wanted.shape[1], prefix, grid)


def fill(exported: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Load all weights into a model of another library: each has its place, and each place one.

    Args:
        exported: the other library's model.
        weights: under its keys.
        name: of our model, for the message.

    Raises:
        ConfigError: keys or shapes that differ; the first five are named.
    """
    places = exported.state_dict()
    wrong = [f"it has no {key}" for key in places if key not in weights]
    wrong += [f"{key} has no place" for key in weights if key not in places]
    wrong += [
        f"{key} is {tuple(tensor.shape)}, not {tuple(places[key].shape)}"
        for key, tensor in weights.items()
        if key in places and tensor.shape != places[key].shape
    ]
    if wrong:
        raise ConfigError(
            f"{name} is no {type(exported).__name__} of transformers: {'; '.join(wrong[:5])}"
        )
    exported.load_state_dict(weights)
