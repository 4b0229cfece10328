"""Weights in any published ALBEF layout -> the names and sizes of a model here.

Layouts: salesforce/ALBEF and LAVIS (``.pth``, ``.pt``), and our own of another ALBEF model. A
pre-training file has its text encoder under ``text_encoder.bert.``, others under
``text_encoder.``; both have token types, which our towers lack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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

ENCODERS = ("text_encoder", "text_encoder_m")
# Parts that one ALBEF model has and another does not. A file may hold more of these than the model
# at hand; anything else that does not fit is an error.
MODULES = (
    *("visual_encoder.", "text_encoder.", "text_decoder.", "vision_proj.", "text_proj."),
    *("visual_encoder_m.", "text_encoder_m.", "text_decoder_m.", "vision_proj_m.", "text_proj_m."),
    *("itm_head.", "cls_head.", "cls_head_m.", "ta_head."),
)
HEADS = tuple(f"{name}.cls." for name in ENCODERS)  # of pre-training: they find hidden words
PARTS = (*MODULES, *HEADS, "temp", *QUEUE)
# A file with one of these is pre-trained, or trained for something else than a class.
NOT_A_CLASSIFIER = ("itm_head.", "ta_head.", "text_decoder.")
_TYPES = "embeddings.token_type_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_LAYER = re.compile(r"^(text_encoder(?:_m)?\.encoder\.layer\.)(\d+)(\..*)$")


def adapt(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a file under this model's keys, without the parts that it does not have.

    Token types are added to the positions. An answer decoder that the file lacks starts from the
    layers of the text encoder that look at images; layers that look at two images in turn start
    from those that look at one; a classifier's head that the file lacks starts from the model's own
    weights. Momentum copies that the file lacks start from its online towers; a queue that it
    lacks, or that has another length, starts anew; position embeddings are resampled to the image
    size.
    """
    own = model.state_dict()
    wanted = {plain(key): key for key in own}
    file = {plain(key): value for key, value in weights.items()}
    file = {k: v for k, v in file.items() if not k.endswith("embeddings.position_ids")}
    _fold_types(file)
    tower = model.text_tower
    kept = dict(file)
    _double_layers(kept, wanted, tower.fusion_layer)
    _add_decoder(kept, wanted, tower.fusion_layer)
    parts = {_part(key) for key in wanted}
    kept = {k: v for k, v in kept.items() if _part(k) in parts or _part(k) not in PARTS}
    if any(key.startswith(NOT_A_CLASSIFIER) for key in file):
        start_anew(classifier_of(wanted, kept), kept, wanted, own)
    add_momentum_copy(kept, wanted)
    add_queue(kept, wanted, own)
    resample_positions(kept, model)
    return {wanted.get(key, key): value for key, value in kept.items()}


def plain(key: str) -> str:
    """Any key as published, the text encoder's without the ``bert.`` of pre-training."""
    name, _, rest = published(key).partition(".")
    return f"{name}.{rest.removeprefix('bert.')}" if name in ENCODERS else published(key)


def _part(key: str) -> str:
    """The head over the vocabulary is a part of its own: most models have none."""
    return next((head for head in HEADS if key.startswith(head)), part_of(key))


def _fold_types(file: dict[str, Tensor]) -> None:
    """Add the embedding of token type 0 to every position's: the same sums, one table less."""
    for key in [k for k in file if k.endswith(_TYPES)]:
        positions = key.removesuffix(_TYPES) + _POSITIONS
        types = file.pop(key)
        if positions in file:
            file[positions] = file[positions].float() + types[0].float()


def _double_layers(kept: dict[str, Tensor], wanted: dict[str, str], first: int) -> None:
    """Layers that look at two images in turn, from those of a file that look at one."""
    here, wish = _depth(kept), _depth(wanted)
    if wish == here or wish != first + 2 * (here - first):
        return

    def source(found: re.Match[str]) -> str:
        number = int(found[2])
        single = number if number < first else first + (number - first) // 2
        return f"{found[1]}{single}{found[3]}"

    sources = {key: _LAYER.sub(source, key) for key in wanted if _LAYER.match(key)}
    doubled = {key: kept[name] for key, name in sources.items() if name in kept}
    for name in set(sources.values()):
        kept.pop(name, None)
    kept.update(doubled)


def _depth(keys: Iterable[str]) -> int:
    """Layers of the text encoder."""
    return max((int(found[2]) + 1 for key in keys if (found := _LAYER.match(key))), default=0)


def _add_decoder(kept: dict[str, Tensor], wanted: dict[str, str], first: int) -> None:
    """An answer decoder from the layers of a text encoder that look at images, and its head."""
    if any(key.startswith("text_decoder.") for key in kept):
        return

    def upper(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) + first}"

    for key in wanted:
        if found := re.fullmatch(r"text_decoder(_m)?\.(?:bert\.)?(.+)", key):
            rest = re.sub(r"^(encoder\.layer\.)(\d+)", upper, found[2])
            source = f"text_encoder{found[1] or ''}.{rest}"
            if source in kept:
                kept[key] = kept[source]
