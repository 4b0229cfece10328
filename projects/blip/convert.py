"""Weights in any published BLIP layout -> the names and sizes of a model here.

Layouts: salesforce/BLIP and LAVIS (``.pth``), and our own of another BLIP model (fine-tuning a
captioner from a pre-trained model, matching with a retrieval model's weights).
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from lavis_lite import vision

# Parts that one BLIP model has and another does not, by the start of their keys. A file may hold
# more of these than the model at hand; anything else that does not fit is an error.
PARTS = (
    "visual_encoder_m.",
    "text_encoder_m.",
    "vision_proj_m.",
    "text_proj_m.",
    "visual_encoder.",
    "text_encoder.",
    "text_decoder.",
    "vision_proj.",
    "text_proj.",
    "itm_head.",
    "cls_head.",
    "temp",
    "image_queue",
    "text_queue",
    "idx_queue",
    "queue_ptr",
)
QUEUE = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
_OURS = re.compile(r"losses\.[^.]+\.queue\.")


def adapt(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this model's keys, without the parts that it does not have.

    Momentum copies that the file lacks start from its online towers; a queue that it lacks, or that
    has another length, starts anew; position embeddings are resampled to the image size.
    """
    own = model.state_dict()
    published = {_published(key): key for key in own}
    file = {_published(key): value for key, value in weights.items()}
    file = {k: v for k, v in file.items() if not k.endswith("embeddings.position_ids")}
    missing_parts = [p for p in PARTS if not any(k.startswith(p) for k in published)]
    kept = {k: v for k, v in file.items() if not k.startswith(tuple(missing_parts))}
    _add_momentum(kept, published)
    _add_queue(kept, published, own)
    _resample_positions(kept, model)
    return {published.get(key, key): value for key, value in kept.items()}


def _published(key: str) -> str:
    """A key as BLIP's checkpoints spell it."""
    key = _OURS.sub("", key)
    return "queue_ptr" if key == "ptr_queue" else key


def _add_momentum(kept: dict[str, Tensor], published: dict[str, str]) -> None:
    in_file = {key.partition(".")[0] for key in kept}
    for key in published:
        tower, _, rest = key.partition(".")
        online = f"{tower.removesuffix('_m')}.{rest}"
        if tower.endswith("_m") and tower not in in_file and online in kept:
            kept[key] = kept[online].clone()


def _add_queue(kept: dict[str, Tensor], published: dict[str, str], own: dict[str, Tensor]) -> None:
    """A queue is whole or new: features and ids of one length; its pointer starts at 0."""
    wanted = {name: own[published[name]] for name in QUEUE if name in published}
    features = [name for name in wanted if name != "queue_ptr"]
    fits = all(name in kept and kept[name].shape == wanted[name].shape for name in features)
    kept.update({k: v for k, v in wanted.items() if not fits or k not in kept})


def _resample_positions(kept: dict[str, Tensor], model: Any) -> None:
    for name in ("visual_encoder", "visual_encoder_m"):
        key = f"{name}.pos_embed"
        encoder = getattr(model, name, None)
        wanted = getattr(encoder, "pos_embed", None)
        if key in kept and wanted is not None and kept[key].shape[1] != wanted.shape[1]:
            prefix = getattr(encoder, "num_prefix_tokens", 1)
            kept[key] = vision.interpolate_pos_embed(kept[key], wanted.shape[1], prefix)
