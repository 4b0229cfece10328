"""Whether a text tower fits its model, as far as configs and files on this machine tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lavis_lite.modules.text.hub_files import is_hub_id


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
