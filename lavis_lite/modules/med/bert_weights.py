"""Initialise a MED from a checkpoint of BERT, or of a model with the same layers (RoBERTa)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lavis_lite.checkpoint.load_state import load_state
from lavis_lite.checkpoint.weights import read_weights
from lavis_lite.errors import CheckpointError, ConfigError, DownloadError
from lavis_lite.io.paths import local_path
from lavis_lite.modules.layers.init import INIT_STD
from lavis_lite.modules.med.head import Head
from lavis_lite.modules.text.hub_files import locate
from lavis_lite.modules.text.text_batch import ADDED

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
HEAD = "cls.predictions."
# Parts of a layer that BERT has not: attention to images, and the feed-forward of learnt queries.
NOT_BERTS = (".crossattention.", "_query.")
# Settings that change the numbers but no shape; and those that shapes show too. BERT's -> ours.
HIDDEN = {"num_attention_heads": "num_heads", "layer_norm_eps": "layer_norm_eps"}
SIZES = HIDDEN | {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "intermediate_size": "mlp_width",
}
SPELLINGS = ((r"^(bert|roberta)\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"),
             (r"LayerNorm\.beta$", "LayerNorm.bias"),
             (r"^lm_head\.(dense|decoder)", rf"{HEAD}transform.\1"),
             (r"^lm_head\.layer_norm", f"{HEAD}transform.LayerNorm"),
             (r"^lm_head\.bias", f"{HEAD}bias"))  # fmt: skip


def load_bert(model: nn.Module, source: str | Path) -> None:
    """Load a BERT or RoBERTa checkpoint into a MED, or into a decoder with its head.

    What BERT lacks (cross-attention) stays as it is. Words that the checkpoint lacks ([DEC] and
    [ENC]) are drawn anew with deviation 0.02. Token types are gone from a MED: the embedding of
    type 0 is added to every position's, so that the states are those of BERT with all types 0.
    (Added to the words it would do the same for them, but not for the new words, and it would
    change the head, whose output weights the words are.)

    Args:
        model: a ``Med``, a ``MedDecoder``, or a model that has a tower with the same names as
            ``bert`` and perhaps a head as ``cls``; vocabulary and lengths decide the shapes.
        source: a folder with ``model.safetensors`` or ``pytorch_model.bin``, such a file, or a hub
            id such as ``bert-base-uncased`` or ``roberta-base``.

    Raises:
        CheckpointError: not a BERT, or one of another size.
        ConfigError, DownloadError: nothing at ``source``.
    """
    where = f"BERT checkpoint {source}"
    path = Path(local_path(source))
    if not path.exists():
        path = locate(source, ("model.safetensors", "pytorch_model.bin"), "BERT checkpoint")
    weights = plain_names(raw := read_weights(path))
    if WORDS not in weights or POSITIONS not in weights:
        some = ", ".join(sorted(weights)[:3])
        raise CheckpointError(f"{where}: not a BERT: no {WORDS} in it, but {some}")
    tower = cast(Any, getattr(model, "bert", model))
    config = read_config(source)
    heads = tower.encoder.layer[0].attention.self.num_heads
    arguments = {"num_heads": heads, "layer_norm_eps": tower.embeddings.LayerNorm.eps}
    if differing := "; ".join(differences(arguments, config)):
        raise CheckpointError(f"{where}: {differing}")
    if unused := unused_positions(raw, config):
        weights[POSITIONS] = weights[POSITIONS][unused:]
    load_state(tower, tower_weights(tower, weights, where), source=where)
    head = getattr(model, "cls", None)
    if head is not None and f"{HEAD}bias" in weights:
        load_state(head, head_weights(head, weights), source=f"{where}, head")


def read_config(source: str | Path) -> dict[str, Any]:
    """Read the ``config.json`` beside a checkpoint; empty if there is none."""
    path = Path(local_path(source))
    folder = path.parent if path.is_file() else path
    try:
        file = locate(folder if path.exists() else source, ("config.json",), "BERT's config")
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ConfigError, DownloadError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def differences(
    arguments: Mapping[str, Any], config: Mapping[str, Any], keys: Mapping[str, str] = HIDDEN
) -> list[str]:
    """List the settings in which a checkpoint's ``config.json`` differs from a tower.

    Args:
        arguments: the tower's arguments.
        config: the checkpoint's config; settings that it lacks are not compared.
        keys: the settings to compare, key of the config -> argument of the tower.
    """
    wrong = [
        f"its {key} is {config[key]}, the tower's {arguments[name]}: "
        f"set model.text.{name}={config[key]}"
        for key, name in keys.items()
        if config.get(key, arguments[name]) != arguments[name]
    ]
    activation = config.get("hidden_act", "gelu")
    return wrong + ([f"its activation is {activation}, a MED's gelu"] * (activation != "gelu"))


def word_problem(words: int, size: int) -> str | None:
    """Say why a tokenizer of ``size`` tokens does not fit a checkpoint with ``words``, or None."""
    if words > size:
        return f"it has {words} words, the tokenizer {size}; use the tokenizer of the checkpoint"
    if size - words > len(ADDED):
        return (
            f"it has {words} words, the tokenizer {size}, of which only {' and '.join(ADDED)} "
            "may be new; use the tokenizer of the checkpoint"
        )
    return None


def unused_positions(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Count the rows before the first position: RoBERTa starts after its padding id."""
    kind = config.get("model_type", "")
    prefixed = any(key.startswith(("roberta.", "lm_head.")) for key in weights)
    if not (prefixed or "roberta" in kind or kind == "camembert"):
        return 0
    return int(config.get("pad_token_id") or 1) + 1


def plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the prefix ``bert.`` and with LayerNorm's present spelling."""
    renamed = {}
    for key, tensor in weights.items():
        for old, new in SPELLINGS:
            key = re.sub(old, new, key)
        renamed[key] = tensor
    return renamed


def tower_weights(tower: nn.Module, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the tower's part of a checkpoint, embedding tables resized to the tower's."""
    initial = tower.state_dict()
    kept = {k: v for k, v in weights.items() if k.startswith(("embeddings.", "encoder."))}
    kept.pop("embeddings.position_ids", None)
    types = kept.pop(TOKEN_TYPES, None)
    num_words, num_positions = initial[WORDS].shape[0], initial[POSITIONS].shape[0]
    if problem := word_problem(len(kept[WORDS]), num_words):
        raise CheckpointError(f"{where}: {problem}")
    if len(kept[POSITIONS]) < num_positions:
        raise CheckpointError(
            f"{where}: it has {len(kept[POSITIONS])} positions; max_length is {num_positions}: "
            f"set model.text.max_length={len(kept[POSITIONS])}"
        )
    fresh = torch.randn(num_words - len(kept[WORDS]), kept[WORDS].shape[1]) * INIT_STD
    kept[WORDS] = torch.cat([kept[WORDS], fresh.to(kept[WORDS])])
    kept[POSITIONS] = kept[POSITIONS][:num_positions]
    if types is not None:
        kept[POSITIONS] = kept[POSITIONS].float() + types[0].float()
    own = {k: v for k, v in initial.items() if any(part in k for part in NOT_BERTS)}
    return own | kept


def head_weights(head: Head, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the head's part of a checkpoint; new words get bias zero, output weights are tied."""
    kept = {
        key.removeprefix("cls."): tensor
        for key, tensor in weights.items()
        if key.startswith(HEAD) and ".decoder." not in key
    }
    bias = kept["predictions.bias"]
    num_words = head.predictions.bias.shape[0]
    kept["predictions.bias"] = torch.cat([bias, bias.new_zeros(num_words - len(bias))])
    kept["predictions.decoder.weight"] = head.predictions.decoder.weight.detach()
    return kept
