"""Checks that a text tower fits its model, as far as configs and local files tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.io.paths import is_remote
from lavis_lite.modules.text.hub_files import is_hub_id


def length_problems(name: str, holds: int | None, model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a text tower that is too short for its model's texts.

    Args:
        name: name of the text backbone.
        holds: the most tokens that it takes; None if it has no limit.
        model: the arguments of the model, which cuts texts to its ``max_length``.
    """
    length = model.get("max_length")
    if "max_length" in model and length is None and holds is None:
        yield (
            f"text_backbone {name!r} takes texts of any length: say how many tokens to read, such "
            "as model.max_length=64"
        )
    if isinstance(length, int) and length < 2:
        yield f"texts of {length} tokens (model.max_length); at least 2, for a token and the end"
    if isinstance(length, int) and holds is not None and holds < length:
        yield (
            f"text_backbone {name!r} holds {holds} tokens, but texts have up to {length} "
            f"(model.max_length): use model.max_length={holds}, or a tower of {length} and more"
        )


def tokenizer_problems(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problem of a tokenizer that does not exist.

    Args:
        model: the arguments of the model, with its ``tokenizer``.
    """
    source = str(model.get("tokenizer") or "")
    if source and (problem := path_problem(source.removeprefix("hf/"))):
        yield f"model.tokenizer: {problem}"


def path_problem(source: str) -> str | None:
    """Say that a path does not exist; None if it does, or if it is a URL or a hub id."""
    if is_hub_id(source) or is_remote(source) or Path(source).expanduser().exists():
        return None
    return f"{source} does not exist; a file, a folder or a hub id is expected"
