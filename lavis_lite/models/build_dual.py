"""Dual encoders from their components, and what a config can tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, UnknownName
from lavis_lite.losses.gradient_cache import check_cachable
from lavis_lite.models.base import LossSpecs, Spec
from lavis_lite.models.build import build_vision, check_width, describe_arguments, width_of
from lavis_lite.models.dual_encoder import DualEncoder
from lavis_lite.modules.text.load_tokenizer import tokenizer_for

D = TypeVar("D", bound=DualEncoder)
B = TypeVar("B", bound=Callable[..., Any])
Projection = Literal["linear", "affine", "none"]
ARGUMENTS = {
    "text": "the text backbone's component: any that needs no image.",
    "tokenizer": """a WordPiece vocabulary's folder, file or hub id, or ``hf/`` and the folder or
    hub id of any tokenizer; None is an ``hf/*`` tower's own, or the small one of the package.""",
    "embed_width": "width E of the joint space; None is that of the image tower.",
    "max_length": "tokens that a text is cut to; None is all that the text tower holds.",
    "vision_projection": """from the pooled image to the joint space: ``linear``, ``affine`` (with a
    bias), or ``none`` where the tower ends there.""",
    "text_projection": "likewise of the text.",
    "temperature": "what similarities are divided by at first; it is learnt.",
    "min_temperature": "it is kept from falling below; 0 is no bound.",
    "gradient_cache": """rows of a batch that are encoded at a time in training, for batches whose
    activations don't fit into memory: the same numbers for one more forward pass. 0: all.""",
}


def describe_dual(builder: B) -> B:
    """``describe_arguments``, with those that the builders of dual encoders have in common."""
    return describe_arguments(builder, ARGUMENTS)


def build_dual(
    model: Callable[..., D],
    vision: Spec,
    text: Spec,
    image_size: ImageSize,
    tokenizer: str | None,
    embed_width: int | None,
    max_length: int | None,
    vision_projection: Projection,
    text_projection: Projection,
    temperature: float,
    min_temperature: float,
    gradient_cache: int,
    losses: LossSpecs | None,
) -> D:
    """A dual encoder from its components: towers, then the projections to where they meet.

    Args:
        model: the class that is built, or a partial of it.

    The others are those of the registered builders, see ``ARGUMENTS``.

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
    built = model(
        images,
        texts,
        words,
        projection("vision", vision_projection, width_of(images), joint_width),
        projection("text", text_projection, width_of(texts), joint_width),
        embed_width=joint_width,
        image_size=image_size,
        max_length=length,
        temperature=temperature,
        min_temperature=min_temperature,
        gradient_cache=gradient_cache,
    )
    built.add_losses(losses)
    return built


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
