"""The steps of which the registered builders of models are made.

A builder is the one place that knows both a config and how parts are wired. It makes them in an
order of its own, which decides the random weights that a seed gives.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping, Sized
from typing import Any, TypeVar

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Spec
from lavis_lite.modules.med.bert_weights import load_bert
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.registry.component import SYNONYMS, width_hint

B = TypeVar("B", bound=Callable[..., Any])

# The arguments that builders have in common, as `describe_arguments` explains them.
ARGUMENTS = {
    "vision": "the vision encoder's component.",
    "text": "the text encoder's component.",
    "language": "the language model's component, any of the kind ``language_model``.",
    "prompt": "what texts start from; it is given to the model, not learnt.",
    "answer_prompt": "what answers start from; ``{}`` in it stands for the question.",
    "freeze_vision": "leave the vision tower as it is; one in half precision must be.",
    "freeze_language": "leave the language model as it is.",
    "image_size": "side of the square input, or its (height, width).",
    "tokenizer": "a vocabulary's folder, file or hub id; None is the small one of the package.",
    "num_classes": "number of classes C.",
    "embed_width": "width E of the joint space.",
    "max_length": "tokens that a text is cut to.",
    "use_distill": "keep a momentum copy, whose opinion the loss mixes into its targets.",
    "momentum": "decay of the momentum copy per optimizer step.",
    "losses": "name -> component.",
}


def describe_arguments(builder: B, others: Mapping[str, str] | None = None) -> B:
    """A decorator: every argument of ``ARGUMENTS`` that a docstring leaves out is written into it.

    All of them come in the order of the signature, before what the docstring refers to.

    Args:
        builder: its docstring may describe some of its arguments.
        others: argument -> what it is, beside or in place of ``ARGUMENTS``.
    """
    known = {**ARGUMENTS, **(others or {})}
    paragraphs = inspect.cleandoc(builder.__doc__ or "").split("\n\n")
    own: dict[str, str] = {}
    name = ""
    for paragraph in [text for text in paragraphs if text.startswith("Args:\n")]:
        paragraphs.remove(paragraph)
        for line in textwrap.dedent(paragraph.removeprefix("Args:\n")).splitlines():
            name = name if line.startswith(" ") else line.partition(":")[0]
            own[name] = f"{own[name]}\n{line}" if name in own else line
    lines = [own.get(n, f"{n}: {known.get(n)}") for n in inspect.signature(builder).parameters]
    last = len(paragraphs) - paragraphs[-1].startswith("Reference:")
    paragraphs.insert(last, "Args:\n" + textwrap.indent("\n".join(lines), "    "))
    builder.__doc__ = "\n\n".join(paragraphs)
    return builder


def width_of(tower: nn.Module) -> int:
    """The ``width`` D of a tower's tokens or states.

    Raises:
        ConfigError: it has none.
    """
    width = getattr(tower, "width", None)
    if not isinstance(width, int):
        raise ConfigError(f"a {type(tower).__name__} has no integer `width`")
    return width


def build_vision(vision: Spec, image_size: ImageSize) -> nn.Module:
    """The vision encoder of a model.

    Raises:
        ConfigError: a class without ``width``.
    """
    encoder = registry.build("vision_encoder", vision, image_size=image_size)
    check_width(encoder, "vision", vision)
    return encoder


def build_text(text: Spec, tokenizer: Sized, source: nn.Module) -> Med:
    """A text tower that can look at what another tower gives.

    Args:
        text: the component.
        tokenizer: its length is the number of word embeddings.
        source: the tower whose tokens or states are looked at.

    Raises:
        ConfigError: a text backbone that cannot look at anything.
    """
    tower = registry.build(
        "text_backbone", text, vocab_size=len(tokenizer), encoder_width=width_of(source)
    )
    if not isinstance(tower, Med):
        raise ConfigError(
            "model.text: this model needs a text backbone with cross-attention, such as 'med'; "
            f"{text['name']!r} has none"
        )
    return tower


def build_decoder(text: Spec, tokenizer: Sized, source: nn.Module) -> MedDecoder:
    """A text tower that writes; where it starts from a BERT, its head starts from BERT's.

    The arguments are those of ``build_text``.
    """
    decoder = MedDecoder(build_text(text, tokenizer, source))
    if text["name"] == "med" and text.get("pretrained"):
        load_bert(decoder, text["pretrained"])
    return decoder


def class_head(width: int, num_classes: int) -> nn.Sequential:
    """(B, D) -> (B, C) logits: two layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, num_classes))


def check_width(tower: nn.Module, key: str, spec: Spec) -> None:
    """Refuse a tower without the ``width`` that its contract asks for.

    Args:
        tower: as it was built.
        key: ``vision`` or ``text``, where it stands in the config.
        spec: its component.

    Raises:
        ConfigError: it has none; the message says what to set, and where.
    """
    if isinstance(getattr(tower, "width", None), int):
        return
    kind, what = {
        "vision": ("vision_encoder", "its tokens"),
        "text": ("text_backbone", "its states"),
    }[key]
    own = [name for name in SYNONYMS if hasattr(tower, name)]
    raise ConfigError(
        f"model.{key}: {spec['name']!r} ({registry.entry(kind, spec['name']).where}) gives a "
        f"{type(tower).__name__} that has no integer `width` (D of {what}): set "
        f"{width_hint('encoder', own) or '`encoder.width = ...`'} where it is made"
    )
