"""The parts of a dual encoder from their components, and what a config can tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.losses.gradient_cache import check_cachable
from lavis_lite.models.base import Spec
from lavis_lite.models.build import build_vision, check_width, width_of
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.load_tokenizer import tokenizer_for
from lavis_lite.modules.text.wordpiece import WordPiece

Projection = Literal["linear", "affine", "none"]


class Parts(NamedTuple):
    """The arguments of a ``DualEncoder`` that are built, and the sizes that follow from them."""

    visual_encoder: nn.Module
    text_encoder: nn.Module
    tokenizer: WordPiece | HfTokenizer
    vision_proj: nn.Module
    text_proj: nn.Module
    embed_width: int
    max_length: int


def build_parts(
    vision: Spec,
    text: Spec,
    image_size: ImageSize,
    tokenizer: str | None,
    embed_width: int | None,
    max_length: int | None,
    vision_projection: Projection,
    text_projection: Projection,
) -> Parts:
    """The towers of a dual encoder and the projections to where they meet, in this order.

    The arguments are those of the registered builders, such as ``clip``.

    Raises:
        ConfigError: parts that don't fit each other.
    """
    words = tokenizer_for(text, tokenizer)
    images = build_vision(vision, image_size)
    joint_width = width_of(images) if embed_width is None else embed_width
    texts = registry.build(
        "text_backbone", text, vocab_size=len(words), encoder_width=width_of(images)
    )
    check_width(texts, "text", text)
    length = text_length(texts, max_length, text)
    vision_proj = projection("vision", vision_projection, width_of(images), joint_width)
    text_proj = projection("text", text_projection, width_of(texts), joint_width)
    return Parts(images, texts, words, vision_proj, text_proj, joint_width, length)


def dual_problems(spec: Spec, model: Spec) -> Iterator[str]:
    """Yield the problems of a dual encoder as a whole, as far as its config tells.

    Args:
        spec: the model as a component.
        model: its arguments, defaults included.
    """
    tower, chunk = model["vision"], model["gradient_cache"]
    if not chunk or not tower["name"].startswith("timm/"):  # others are judged when built
        return
    fresh = {key: value for key, value in tower.items() if key != "pretrained"}
    try:
        with torch.device("meta"):
            check_cachable(
                registry.build("vision_encoder", fresh, image_size=model["image_size"]), chunk
            )
    except (ConfigError, UnknownName) as error:
        yield str(error)


def text_length(tower: nn.Module, wanted: int | None, spec: Spec) -> int:
    """Return the most tokens of a text: ``wanted``, or all that the tower holds.

    Raises:
        ConfigError: more than it holds; or no number, and the tower has no bound.
    """
    holds: int | None = getattr(tower, "max_length", None)
    length = holds if wanted is None else wanted
    if length is None:
        raise ConfigError(
            f"model.max_length: text backbone {spec['name']!r} takes texts of any length; "
            "say how many tokens to read, such as 64"
        )
    if holds is not None and length > holds:
        raise ConfigError(
            f"model.max_length: {length}; text backbone {spec['name']!r} holds {holds} tokens"
        )
    return length


def projection(key: str, kind: Projection, width: int, embed_width: int) -> nn.Module:
    """(B, D) -> (B, E), drawn with deviation ``D ** -0.5``.

    Raises:
        ConfigError: ``none``, and the widths differ.
    """
    if kind == "none":
        if width != embed_width:
            raise ConfigError(
                f"model.{key}_projection: none, but the tower is {width} wide and the joint space "
                f"{embed_width} (model.embed_width); use linear, or equal widths"
            )
        return nn.Identity()
    linear = nn.Linear(width, embed_width, bias=kind == "affine")
    nn.init.normal_(linear.weight, std=width**-0.5)
    if kind == "affine":
        nn.init.zeros_(linear.bias)
    return linear
