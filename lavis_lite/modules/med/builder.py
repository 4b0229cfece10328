"""The registered builder of a MED: its arguments, their checks, and its first weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.modules.layers.init import INIT_STD, init_linear_
from lavis_lite.modules.med.bert_weights import (
    SIZES,
    differences,
    load_bert,
    read_config,
    word_problem,
)
from lavis_lite.modules.med.model import Med, fusion_problem
from lavis_lite.modules.text.config_checks import length_problems, tokenizer_problems
from lavis_lite.modules.text.load_tokenizer import load_tokenizer

MAX_LENGTH, DEPTH = 512, 12  # defaults of a MED, those of BERT


def med_problems(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield problems of a MED: too short for its texts, or unlike its pretrained checkpoint.

    Args:
        spec: the component.
        model: the arguments of the model around it.
    """
    yield from length_problems(spec["name"], spec.get("max_length", MAX_LENGTH), model)
    yield from tokenizer_problems(model)
    attends = spec.get("cross_attention", True)
    if problem := fusion_problem(spec.get("fusion_layer", 0), spec.get("depth", DEPTH), attends):
        yield problem
    source = spec.get("pretrained")
    if not source or not Path(source).expanduser().exists():
        return  # not on this machine: checked when it is loaded
    parameters = registry.entry("text_backbone", spec["name"]).arguments
    arguments = {key: parameter.default for key, parameter in parameters.items()} | {**spec}
    config = read_config(source)
    where = f"BERT checkpoint {source}"
    yield from (f"{where}: {problem}" for problem in differences(arguments, config, SIZES))
    size = tokens_known_here(model.get("tokenizer"))
    if size and "vocab_size" in config and (problem := word_problem(config["vocab_size"], size)):
        yield f"{where}: {problem}"


@registry.register("text_backbone", "med", check=med_problems)
def med(
    width: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_width: int = 3072,
    max_length: int = 512,
    dropout: float = 0.1,
    layer_norm_eps: float = 1e-12,
    position_std: float = INIT_STD,
    init_scale: float | None = None,
    cross_attention: bool = True,
    fusion_layer: int = 0,
    pretrained: str | None = None,
    *,
    vocab_size: int,
    encoder_width: int | None = None,
) -> Med:
    """Build a MED; beside the arguments of the class there are two for its first weights.

    Args:
        init_scale: draw the matrices with deviation ``init_scale / sqrt(fan-in)``; for small
            towers, which BERT's fixed 0.02 keeps from learning.
        pretrained: folder or hub id of a BERT or RoBERTa checkpoint to start from. RoBERTa needs
            ``layer_norm_eps: 1e-5``, and the model ``tokenizer: hf/<the same>``.
    """
    tower = Med(
        width=width,
        depth=depth,
        num_heads=num_heads,
        mlp_width=mlp_width,
        vocab_size=vocab_size,
        encoder_width=encoder_width,
        max_length=max_length,
        dropout=dropout,
        layer_norm_eps=layer_norm_eps,
        cross_attention=cross_attention,
        fusion_layer=fusion_layer,
        position_std=position_std,
    )
    if init_scale is not None:
        init_linear_(tower, init_scale)
    if pretrained is not None:
        load_bert(tower, pretrained)
    return tower


def tokens_known_here(source: str | None) -> int:
    """Return a tokenizer's vocabulary size, 0 if it would have to be fetched first."""
    if source is not None and not Path(str(source).removeprefix("hf/")).expanduser().exists():
        return 0
    return len(load_tokenizer(source))
