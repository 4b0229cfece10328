"""The parts of a model with a language model, from their components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Spec
from lavis_lite.models.build import width_of
from lavis_lite.modules.language.loading import Language
from lavis_lite.modules.layers.modes import freeze_module
from lavis_lite.projects.blip2.build import build_qformer
from lavis_lite.projects.blip2.qformer import QFormer
from lavis_lite.projects.blip2.towers import VisionNorm, build_towers


class Parts(NamedTuple):
    """The arguments of a model that are built, and where the frozen ones have weights from."""

    visual_encoder: nn.Module
    ln_vision: VisionNorm
    qformer: QFormer
    language: Language
    kept_elsewhere: Mapping[str, str]


def build_parts(
    vision: Spec,
    text: Spec,
    language: Spec,
    image_size: ImageSize,
    freeze_vision: bool,
    freeze_language: bool,
    vocab_size: int | None = None,
) -> Parts:
    """Build vision tower, norm, Q-Former and language model, in this order.

    Args:
        vision, text, language: their components.
        image_size: of the images.
        freeze_vision: take the tower out of training.
        freeze_language: take the language model out of training.
        vocab_size: number of words of a Q-Former that reads texts; None: it reads none.

    Raises:
        ConfigError: parts that don't fit each other, or that cannot be built.
    """
    encoder, norm = build_towers(vision, image_size, freeze_vision)
    qformer = build_qformer(text, vocab_size, width_of(encoder))
    writer = registry.build("language_model", language)
    if freeze_language:
        freeze_module(writer)
    elsewhere = {}
    if source := vision.get("pretrained"):
        elsewhere["visual_encoder."] = str(vision["name"] if source is True else source)
    if freeze_language and language.get("pretrained"):
        elsewhere["language."] = str(language["name"])
    return Parts(encoder, norm, qformer, writer, elsewhere)
