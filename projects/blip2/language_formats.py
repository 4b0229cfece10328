"""The layouts that models with a language model read and write: LAVIS's and transformers'."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from lavis_lite.errors import CheckpointError
from lavis_lite.models.formats import Formats
from lavis_lite.models.published_weights import resample_positions
from lavis_lite.projects.blip2 import huggingface, names
from lavis_lite.projects.blip2.huggingface import QueriedParts

log = logging.getLogger(__name__)

# What files of the first stage hold and models of the second have no use for.
FIRST_STAGE = ("temp", "itm_head.", "vision_proj.", "text_proj.", "Qformer.cls.")
_WORDS = "Qformer.bert.embeddings.word_embeddings.weight"
_POSITIONS = "Qformer.bert.embeddings.position_embeddings.weight"
_TEXT_LAYERS = (".intermediate.dense.", ".output.dense.", ".output.LayerNorm.")
_KINDS = {"opt_proj.": "an OPT", "t5_proj.": "a T5", "llm_proj.": "a language model"}
_COUNTER = "Qformer.bert.embeddings.position_ids"


class LanguageFormats(Formats):
    """Weights of LAVIS and transformers in, folders for transformers out."""

    def rename_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of transformers or LAVIS under our keys; others as they are.

        The published name of the projection stays: it tells which language model it is for.
        """
        renamed: dict[str, Tensor] = {}
        for key, tensor in huggingface.apart(weights).items():
            name = key if key.startswith(tuple(_KINDS)) else names.ours(key)
            if name == f"{names.TOWER}cls_token":
                tensor = tensor.reshape(1, 1, -1)
            elif name == f"{names.TOWER}pos_embed" and tensor.ndim == 2:  # CLIP's of LAVIS
                tensor = tensor[None]
            if name != _COUNTER:
                renamed[name] = tensor
        return renamed

    def adapt_weights(self, model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights without what this model has no use for, resampled to its image size.

        Raises:
            CheckpointError: weights of another stage, or for another kind of language model.
        """
        language_model = cast(QueriedParts, model)
        own = model.state_dict()
        kind = next((k for k in _KINDS if any(key.startswith(k) for key in weights)), None)
        if kind is not None:
            _check_kind(language_model, kind)
            weights = {names.ours(key): tensor for key, tensor in weights.items()}
        of_first_stage = any(key.startswith(FIRST_STAGE) for key in weights)
        kept = {key: w for key, w in weights.items() if not key.startswith(FIRST_STAGE)}
        if _WORDS in own:
            _check_text(kept, model)
            if _WORDS in kept:  # transformers' files may know more words, such as <image>
                kept[_WORDS] = kept[_WORDS][: len(own[_WORDS])]
        else:
            kept = {key: w for key, w in kept.items() if not _reads_text(key)}
        if of_first_stage and not any(key.startswith(names.PROJECTION) for key in kept):
            log.warning(
                "the weights are of the first stage: the projection to the language model starts "
                "anew, and tells it nothing until it is trained"
            )
            kept |= {key: w for key, w in own.items() if key.startswith(names.PROJECTION)}
        for key in [key for key in kept if key.startswith(names.LANGUAGE) and key in own]:
            if kept[key].shape[1:] == own[key].shape[1:] and kept[key].ndim:  # one more: <image>
                kept[key] = kept[key][: len(own[key])]
        _check_width(kept, own, language_model)
        resample_positions(kept, model)
        return kept

    def check_config(self, model: nn.Module, config: Mapping[str, object], source: str) -> None:
        """Refuse weights that a ``config.json`` beside them says are of another model."""
        huggingface.check_config(cast(QueriedParts, model), config, source)

    def save_transformers(self, model: nn.Module, folder: str | Path) -> Path:
        """Write the model as a folder that transformers' ``from_pretrained`` reads.

        Raises:
            ConfigError: transformers has no such model.
        """
        return huggingface.save(cast(QueriedParts, model), folder)


def _reads_text(key: str) -> bool:
    """Tell whether a tensor of a Q-Former serves texts alone."""
    if not key.startswith("Qformer.bert."):
        return False
    if key in (_WORDS, _POSITIONS):
        return True
    return "attention." not in key and any(part in key for part in _TEXT_LAYERS)


def _check_kind(model: QueriedParts, kind: str) -> None:
    """Refuse a file for the other kind of language model, whose width may be the same."""
    apart = model.language.reads_apart
    if kind != "llm_proj." and apart != (kind == "t5_proj."):
        mine = type(model.language.model).__name__
        raise CheckpointError(
            f"the weights were trained for {_KINDS[kind]} ({kind}*), and this model's language "
            f"model is a {mine}: take the type with that language model, or set model.language"
        )


def _check_text(kept: dict[str, Tensor], model: nn.Module) -> None:
    if _WORDS not in kept and any(key.startswith(names.PROJECTION) for key in kept):
        raise CheckpointError(
            "the weights have a Q-Former that reads no texts, as blip2_opt and blip2_t5 have: a "
            f"{type(model).__name__} asks it to read instructions, and needs an InstructBLIP file"
        )


def _check_width(kept: dict[str, Tensor], own: dict[str, Tensor], model: QueriedParts) -> None:
    key = f"{names.PROJECTION}weight"
    if key in kept and kept[key].shape != own[key].shape:
        raise CheckpointError(
            f"the weights project queries of {kept[key].shape[1]} to a language model "
            f"{kept[key].shape[0]} wide; this model's Q-Former is {own[key].shape[1]} wide and its "
            f"{type(model.language.model).__name__} {own[key].shape[0]} (model.language)"
        )
