"""Images and texts as unit vectors of one space: methods that several models take up.

A model with these parts says so in its class: ``image_features = joint_space.image_features``.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from lavis_lite.models.base import Texts, unit
from lavis_lite.models.images import as_tokens
from lavis_lite.models.tensors import as_states
from lavis_lite.models.texts import tokenized
from lavis_lite.modules import vision
from lavis_lite.modules.med.model import Med
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece


class Parts(Protocol):
    """The parts that the functions below read."""

    visual_encoder: nn.Module
    vision_proj: nn.Linear
    text_proj: nn.Linear
    tokenizer: WordPiece

    @property
    def text_tower(self) -> Med:
        """The tower that reads texts."""
        ...

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        ...


def encode_text(model: Parts, text: Texts) -> Tensor:
    """B texts -> (B, T, D) states of the text alone."""
    batch = tokenized(text, model)
    return model.text_tower(batch.ids, batch.mask, mode="text")


def image_features(model: Parts, image_tokens: Tensor) -> Tensor:
    """(B, N, D) -> (B, E) unit length, fp32."""
    return unit(
        model.vision_proj(vision.pool(model.visual_encoder, as_tokens(image_tokens, model)))
    )


def text_features(model: Parts, text_tokens: Tensor) -> Tensor:
    """(B, T, D) -> (B, E) unit length, fp32."""
    return unit(
        model.text_proj(as_states(text_tokens, model.text_tower.width, "text_tokens")[:, 0])
    )
