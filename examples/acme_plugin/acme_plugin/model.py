"""A model: a dual encoder, whose image and text towers meet in one space."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.models.base import VisionLanguageModel, unit
from lavis_lite.models.build import build_vision, width_of
from lavis_lite.models.images import as_images
from lavis_lite.models.texts import as_texts, tokenized
from lavis_lite.modules import vision as vision_tokens
from lavis_lite.modules.text.load_tokenizer import tokenizer_for
from lavis_lite.modules.text.pooling import pool
from lavis_lite.modules.text.text_batch import TextBatch


class DualEncoder(VisionLanguageModel):
    """Unit-length features of images and of texts, (B, E) each.

    What it defines is what losses and metrics find: ``image_features``, ``text_features`` and
    ``temperature`` are enough for ``info_nce`` and for ``retrieval``.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, D), any module.
        text_encoder: ids and mask (B, T) -> states (B, T, D), any module.
        tokenizer: its words are those of the text encoder.
        vision_proj: (B, D) -> (B, E).
        text_proj: (B, D) -> (B, E).
        image_size: side of the square input.
        max_length: tokens that a text is cut to.
    """

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: nn.Module,
        tokenizer: Any,
        vision_proj: nn.Module,
        text_proj: nn.Module,
        *,
        image_size: int = 64,
        max_length: int = 30,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length, self.tokenizer = image_size, max_length, tokenizer
        self.visual_encoder, self.text_encoder = visual_encoder, text_encoder
        self.vision_proj, self.text_proj = vision_proj, text_proj
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())

    @property
    def temperature(self) -> Tensor:
        """() what similarities are divided by."""
        return self.log_temperature.exp()

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        return self.tokenizer.encode(as_texts(texts), self.max_length, device=self.device)

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D)."""
        return vision_tokens.encode(self.visual_encoder, as_images(image, self))

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        """B texts -> (B, 1, D): the state that speaks for each."""
        batch = tokenized(text, self)
        states = self.text_encoder(batch.ids, batch.mask)  # (B, T, D)
        return pool(self.text_encoder, states, batch.mask)[:, None]

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length."""
        return unit(self.vision_proj(vision_tokens.pool(self.visual_encoder, image_tokens)))

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, 1, D) -> (B, E) unit length."""
        return unit(self.text_proj(text_tokens[:, 0]))


@registry.register("model", "acme_plugin_dual")
def build_dual_encoder(
    vision: Mapping[str, Any],
    text: Mapping[str, Any],
    image_size: int = 64,
    tokenizer: str | None = None,
    embed_width: int = 32,
    max_length: int = 30,
    losses: Mapping[str, Mapping[str, Any]] | None = None,
) -> DualEncoder:
    """A dual encoder from what a config says: the one place that knows names and wiring.

    Args:
        vision: the component of the image tower.
        text: the component of the text tower.
        image_size: side of the square input.
        tokenizer: as of ``lavis_lite.modules.text.load_tokenizer.tokenizer_for``.
        embed_width: E.
        max_length: tokens that a text is cut to.
        losses: name -> component.
    """
    words = tokenizer_for(text, tokenizer)
    images = build_vision(vision, image_size)
    texts = registry.build("text_backbone", text, vocab_size=len(words))
    model = DualEncoder(
        images,
        texts,
        words,
        vision_proj=nn.Linear(width_of(images), embed_width),
        text_proj=nn.Linear(width_of(texts), embed_width),
        image_size=image_size,
        max_length=max_length,
    )
    model.add_losses(losses)
    return model
