"""Weights in a published layout of the first stage -> the names and sizes of a model here."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from torch import Tensor

from lavis_lite.errors import CheckpointError
from lavis_lite.models.published_weights import resample_positions
from lavis_lite.projects.blip2 import huggingface, names
from lavis_lite.projects.blip2.huggingface_retrieval import HERE_ALONE, FirstStage

log = logging.getLogger(__name__)

ENCODER = "visual_encoder."
WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
SECOND_STAGE = ("opt_proj.", "t5_proj.", "llm_proj.", "language_proj.")
BLIP = ("text_encoder.", "text_decoder.")


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of LAVIS or transformers under our keys; others as they are."""
    ours = {}
    for key, tensor in huggingface.apart(weights).items():
        published = key.startswith((ENCODER, "query_tokens"))
        ours[names.ours(key) if published else key] = tensor
    return ours


def adapt(model: FirstStage, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renamed weights of the first stage, with positions resampled to the image size of ``model``.

    Temperature and the head over words start anew from files of transformers, which have neither.

    Raises:
        CheckpointError: of the second stage, of BLIP, or without a vision encoder where the model
            has none of its own.
    """
    refuse(
        weights,
        SECOND_STAGE,
        "the weights are of the second stage, whose Q-Former reads no texts: they load into "
        "blip2_opt and blip2_t5, and this model takes those of the first",
    )
    refuse(weights, BLIP, "the weights are of BLIP, not BLIP-2: they load into the models blip_*")
    has_encoder = bool(model.visual_encoder.state_dict())
    given = any(key.startswith(ENCODER) for key in weights)
    if has_encoder and not given and ENCODER not in model.kept_elsewhere:
        raise CheckpointError(
            "the weights leave out the vision encoder, which their training did not change: set "
            "model.vision.pretrained to the file that it is from"
        )
    kept = dict(weights)
    own = model.state_dict()
    if WORDS in kept:  # transformers' files may know more words, such as <image>
        kept[WORDS] = kept[WORDS][: len(own[WORDS])]
    if not any(key.startswith(HERE_ALONE) for key in kept):
        fresh = {k: v for k, v in own.items() if k.startswith(HERE_ALONE)}
        tied = "Qformer.cls.predictions.decoder.weight"
        kept |= {key: tensor for key, tensor in fresh.items() if key != tied}
        log.warning(
            "the weights are transformers', which have no temperature and no head over words: "
            "these start anew, and the model writes nothing sensible before it is trained"
        )
    resample_positions(kept, model)
    return kept


def refuse(weights: Iterable[str], prefixes: tuple[str, ...], why: str) -> None:
    """Refuse weights with keys of other models.

    Raises:
        CheckpointError: with ``why``, and the first such key.
    """
    if found := next((key for key in weights if key.startswith(prefixes)), None):
        raise CheckpointError(f"{why} (there is {found})")
