"""Whether a text tower fits its model, as far as configs and files on this machine tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_lite import registry
from lavis_lite.text.source import is_hub_id

MAX_LENGTH, DEPTH = 512, 12  # of a MED that says nothing else, as BERT's


def length_problems(name: str, holds: int | None, model: Mapping[str, Any]) -> Iterator[str]:
    """What to say of a text tower that is too short for its model's texts.

    Args:
        name: of the text backbone.
        holds: most tokens that it takes; None where nothing limits it.
        model: the arguments of the model, whose ``max_length`` texts are cut to.
    """
    wanted = model.get("max_length")
    if "max_length" in model and wanted is None and holds is None:
        yield (
            f"text_backbone {name!r} takes texts of any length: say how many tokens to read, such "
            "as model.max_length=64"
        )
    if isinstance(wanted, int) and wanted < 2:
        yield f"texts of {wanted} tokens (model.max_length); at least 2, for a token and the end"
    if isinstance(wanted, int) and holds is not None and holds < wanted:
        yield (
            f"text_backbone {name!r} holds {holds} tokens, but texts have up to {wanted} "
            f"(model.max_length): use model.max_length={holds}, or a tower of {wanted} and more"
        )


def tokenizer_problems(model: Mapping[str, Any]) -> Iterator[str]:
    """What to say of a tokenizer that is nowhere.

    Args:
        model: the arguments of the model, with its ``tokenizer``.
    """
    source = str(model.get("tokenizer") or "")
    if source and (problem := path_problem(source.removeprefix("hf/"))):
        yield f"model.tokenizer: {problem}"


def path_problem(source: str) -> str | None:
    """Why something that reads like a path, and not like a hub id, is not there, or None."""
    if is_hub_id(source) or Path(source).expanduser().exists():
        return None
    return f"{source} does not exist; a file, a folder or a hub id is expected"


def med_problems(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """A MED too short for its texts, or unlike the checkpoint that it is to start from.

    Args:
        spec: the component.
        model: the arguments of the model around it.
    """
    yield from length_problems(spec["name"], spec.get("max_length", MAX_LENGTH), model)
    yield from tokenizer_problems(model)
    looks = spec.get("cross_attention", True)
    if problem := fusion_problem(spec.get("fusion_layer", 0), spec.get("depth", DEPTH), looks):
        yield problem
    source = spec.get("pretrained")
    if not source or not Path(source).expanduser().exists():
        return  # to be fetched first: said when it is loaded
    from lavis_lite.text.bert import SIZES, differences, read_config, word_problem

    own = {k: p.default for k, p in registry.arguments("text_backbone", spec["name"]).items()}
    config = read_config(source)
    where = f"BERT checkpoint {source}"
    yield from (f"{where}: {problem}" for problem in differences({**own, **spec}, config, SIZES))
    size = tokens_known_here(model.get("tokenizer"))
    if size and "vocab_size" in config and (problem := word_problem(config["vocab_size"], size)):
        yield f"{where}: {problem}"


def fusion_problem(fusion_layer: int, depth: int, cross_attention: bool) -> str | None:
    """Why layers from ``fusion_layer`` on cannot be those that look at an image, or None."""
    if not fusion_layer or (cross_attention and 0 < fusion_layer < depth):
        return None
    return (
        f"med: fusion_layer {fusion_layer} of {depth} layers; it is from 1 to {depth - 1}, "
        "with cross-attention, or 0 for cross-attention in all of them"
    )


def tokens_known_here(source: str | None) -> int:
    """Tokens of a tokenizer, 0 where it would have to be fetched first."""
    from lavis_lite.text.tokenizer import load_tokenizer

    if source is not None and not Path(str(source).removeprefix("hf/")).expanduser().exists():
        return 0
    return len(load_tokenizer(source))
