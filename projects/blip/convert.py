"""Weights in any published BLIP layout -> the names and sizes of a model here.

Layouts: salesforce/BLIP and LAVIS (``.pth``), transformers (``names``), and our own of another BLIP
model (fine-tuning a captioner from a pre-trained model, matching with a retrieval model's weights).
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from lavis_lite.models.published_weights import (
    QUEUE,
    add_momentum_copy,
    add_queue,
    classifier_of,
    part_of,
    published,
    resample_positions,
    start_anew,
)

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
    parts = {part_of(key) for key in wanted}
    kept = {k: v for k, v in file.items() if part_of(k) in parts or part_of(k) not in PARTS}
    fresh = _add_second_image(kept, wanted)
    if any(key.startswith(NOT_A_CLASSIFIER) for key in file):
        fresh += classifier_of(wanted, kept)
    start_anew(fresh, kept, wanted, own)
    add_momentum_copy(kept, wanted)
    add_queue(kept, wanted, own)
    resample_positions(kept, model)
    return {wanted.get(key, key): value for key, value in kept.items()}


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
