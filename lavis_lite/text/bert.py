"""Starting a MED from a BERT checkpoint of any make."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from lavis_lite.errors import CheckpointError
from lavis_lite.loading import load_state
from lavis_lite.text.med import INIT_STD, Med, MedDecoder
from lavis_lite.text.source import locate
from lavis_lite.weights import read_weights

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
HEAD = "cls.predictions."
SPELLINGS = ((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"),
             (r"LayerNorm\.beta$", "LayerNorm.bias"))  # fmt: skip


def load_bert(model: Med | MedDecoder, source: str | Path) -> None:
    """Fills a MED, or a decoder with its head, from a BERT checkpoint.

    Cross-attention, which BERT lacks, stays as it is. Words that the checkpoint lacks ([DEC] and
    [ENC]) are drawn anew with deviation 0.02. Token types are gone from a MED: the embedding of
    type 0 is added to every position's, so that the states are those of BERT with all types 0.
    (Added to the words it would do the same for them, but not for the new words, and it would
    change the head, whose output weights the words are.)

    Args:
        model: where to; its vocabulary and lengths decide the shapes.
        source: a folder with ``model.safetensors`` or ``pytorch_model.bin``, such a file, or a hub
            id such as ``bert-base-uncased``.

    Raises:
        CheckpointError: not a BERT, or one of another size.
        ConfigError, DownloadError: nothing at ``source``.
    """
    where = f"BERT checkpoint {source}"
    path = Path(source).expanduser()
    if not path.exists():
        path = locate(source, ("model.safetensors", "pytorch_model.bin"), "BERT checkpoint")
    weights = plain_names(read_weights(path))
    if WORDS not in weights or POSITIONS not in weights:
        some = ", ".join(sorted(weights)[:3])
        raise CheckpointError(f"{where}: no {WORDS} in it; it is no BERT, it has {some}")
    tower = model.bert if isinstance(model, MedDecoder) else model
    load_state(tower, tower_weights(tower, weights, where), source=where)
    if isinstance(model, MedDecoder) and f"{HEAD}bias" in weights:
        load_state(model.cls, head_weights(model, weights), source=f"{where}, head")


def plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefix ``bert.`` and with LayerNorm's present spelling."""
    renamed = {}
    for key, tensor in weights.items():
        for old, new in SPELLINGS:
            key = re.sub(old, new, key)
        renamed[key] = tensor
    return renamed


def tower_weights(tower: Med, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tower's part of a checkpoint, its tables cut or grown to the tower's."""
    own = tower.state_dict()
    found = {k: v for k, v in weights.items() if k.startswith(("embeddings.", "encoder."))}
    found.pop("embeddings.position_ids", None)
    types = found.pop(TOKEN_TYPES, None)
    num_words, num_positions = own[WORDS].shape[0], own[POSITIONS].shape[0]
    if len(found[WORDS]) > num_words:
        raise CheckpointError(
            f"{where}: it has {len(found[WORDS])} words, the tokenizer {num_words}; "
            "use the tokenizer of the checkpoint"
        )
    if len(found[POSITIONS]) < num_positions:
        raise CheckpointError(
            f"{where}: it has {len(found[POSITIONS])} positions; max_length is {num_positions}"
        )
    fresh = torch.randn(num_words - len(found[WORDS]), found[WORDS].shape[1]) * INIT_STD
    found[WORDS] = torch.cat([found[WORDS], fresh.to(found[WORDS])])
    found[POSITIONS] = found[POSITIONS][:num_positions]
    if types is not None:
        found[POSITIONS] = found[POSITIONS].float() + types[0].float()
    return {k: v for k, v in own.items() if ".crossattention." in k} | found


def head_weights(decoder: MedDecoder, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The head's part of a checkpoint; new words get bias zero, output weights are the words'."""
    found = {
        key.removeprefix("cls."): tensor
        for key, tensor in weights.items()
        if key.startswith(HEAD) and not key.startswith(f"{HEAD}decoder.")
    }
    bias = found["predictions.bias"]
    num_words = decoder.cls.predictions.bias.shape[0]
    found["predictions.bias"] = torch.cat([bias, bias.new_zeros(num_words - len(bias))])
    found["predictions.decoder.weight"] = decoder.bert.embeddings.word_embeddings.weight.detach()
    return found
