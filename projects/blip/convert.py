"""Weights in any published BLIP layout -> the names and sizes of a model here.

Layouts: salesforce/BLIP and LAVIS (``.pth``), transformers (``names``), and our own of another BLIP
model (fine-tuning a captioner from a pre-trained model, matching with a retrieval model's weights).
"""

from __future__ import annotations

import logging
import re
from typing import Any

from torch import Tensor

from lavis_lite import vision
from lavis_lite.projects.blip.names import published

log = logging.getLogger(__name__)

QUEUE = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
# Parts that one BLIP model has and another does not: modules, and tensors of their own. A file may
# hold more of these than the model at hand; anything else that does not fit is an error.
MODULES = (
    *("visual_encoder_m.", "text_encoder_m.", "vision_proj_m.", "text_proj_m.", "cls_head_m."),
    *("visual_encoder.", "text_encoder.", "text_decoder.", "vision_proj.", "text_proj."),
    *("itm_head.", "cls_head."),
)
PARTS = (*MODULES, "temp", *QUEUE)
# A file with one of these is pre-trained, or trained for something else than a class.
NOT_A_CLASSIFIER = ("itm_head.", "text_decoder.")
_OF_TWO_IMAGES = re.compile(r"(crossattention\.self|crossattention\.output\.dense)[01]\.")


def adapt(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this model's keys, without the parts that it does not have.

    Momentum copies that the file lacks start from its online towers; a queue that it lacks, or that
    has another length, starts anew; cross-attention to two images starts from that to one, and a
    classifier's head from the model's own weights, where the file is of another task; position
    embeddings are resampled to the image size.
    """
    own = model.state_dict()
    wanted = {published(key): key for key in own}
    file = {published(key): value for key, value in weights.items()}
    file = {k: v for k, v in file.items() if not k.endswith("embeddings.position_ids")}
    parts = {_part_of(key) for key in wanted}
    kept = {k: v for k, v in file.items() if _part_of(k) in parts or _part_of(k) not in PARTS}
    fresh = _add_second_image(kept, wanted)
    if any(key.startswith(NOT_A_CLASSIFIER) for key in file):
        fresh += [k for k in wanted if k.startswith("cls_head.") and k not in kept]
    kept.update({key: own[wanted[key]] for key in fresh})
    if fresh:
        log.warning("the weights are of another task: %d tensors start anew: %s", len(fresh), fresh)
    _add_momentum(kept, wanted)
    _add_queue(kept, wanted, own)
    _resample_positions(kept, model)
    return {wanted.get(key, key): value for key, value in kept.items()}


def _part_of(key: str) -> str:
    """``text_encoder.`` of a key inside of a module; a tensor of its own is its own part."""
    module, dot, _ = key.partition(".")
    return module + dot


def _add_second_image(kept: dict[str, Tensor], wanted: dict[str, str]) -> list[str]:
    """Both cross-attentions of NLVR from the one of a file; returns the keys that it has not."""
    sources = {key: _OF_TWO_IMAGES.sub(r"\1.", key) for key in wanted}
    copied = {k: s for k, s in sources.items() if s != k and k not in kept and s in kept}
    for key, source in copied.items():
        kept[key] = kept[source]
    for source in set(copied.values()):
        del kept[source]
    merges = [k for k in wanted if ".merge_layer." in k and k not in kept]
    return merges if copied else []


def _add_momentum(kept: dict[str, Tensor], wanted: dict[str, str]) -> None:
    in_file = {key.partition(".")[0] for key in kept}
    for key in wanted:
        tower, _, rest = key.partition(".")
        online = f"{tower.removesuffix('_m')}.{rest}"
        if tower.endswith("_m") and tower not in in_file and online in kept:
            kept[key] = kept[online].clone()


def _add_queue(kept: dict[str, Tensor], wanted: dict[str, str], own: dict[str, Tensor]) -> None:
    """A queue is whole or new: features and ids of one length; its pointer starts at 0."""
    parts = {name: own[wanted[name]] for name in QUEUE if name in wanted}
    features = [name for name in parts if name != "queue_ptr"]
    fits = all(name in kept and kept[name].shape == parts[name].shape for name in features)
    kept.update({k: v for k, v in parts.items() if not fits or k not in kept})


def _resample_positions(kept: dict[str, Tensor], model: Any) -> None:
    for name in ("visual_encoder", "visual_encoder_m"):
        key = f"{name}.pos_embed"
        encoder = getattr(model, name, None)
        wanted = getattr(encoder, "pos_embed", None)
        if key in kept and wanted is not None and kept[key].shape[1] != wanted.shape[1]:
            prefix = getattr(encoder, "num_prefix_tokens", 1)
            kept[key] = vision.interpolate_pos_embed(kept[key], wanted.shape[1], prefix)
