"""A model: a dual encoder, whose image and text towers meet in one space."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.models.base import VisionLanguageModel, unit
from lavis_lite.modules import vision
from lavis_lite.modules.text.load_tokenizer import tokenizer_for
from lavis_lite.modules.text.pooling import pool
from lavis_lite.modules.text.text_batch import TextBatch


@registry.register("model", "acme_plugin_dual")
class DualEncoder(VisionLanguageModel):
    """Unit-length embeddings of images and of texts, (B, E) each.

    What it defines is what losses and metrics find: ``image_embeds``, ``text_embeds`` and
    ``temperature`` are enough for ``info_nce`` and for ``retrieval``.

    Args:
        vision: the component of the image tower.
        text: the component of the text tower.
        image_size: side of the square input.
        tokenizer: as of ``lavis_lite.modules.text.load_tokenizer.tokenizer_for``.
        embed_width: E.
        max_length: tokens that a text is cut to.
        losses: name -> component.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        image_size: int = 64,
        tokenizer: str | None = None,
        embed_width: int = 32,
        max_length: int = 30,
        losses: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.embed_width = image_size, embed_width
        self.max_length = max_length
        self.tokenizer = tokenizer_for(text, tokenizer)
        self.visual_encoder = registry.build("vision_encoder", vision, image_size=image_size)
        self.text_encoder = registry.build("text_backbone", text, vocab_size=len(self.tokenizer))
        self.vision_proj = nn.Linear(self.visual_encoder.width, embed_width)
        self.text_proj = nn.Linear(self.text_encoder.width, embed_width)
        self.log_temperature = nn.Parameter(torch.tensor(0.07).log())
        self.add_losses(losses)

    @property
    def temperature(self) -> Tensor:
        """() what similarities are divided by."""
        return self.log_temperature.exp()

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        return self.tokenizer.encode(texts, self.max_length, device=self.device)

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D)."""
        return vision.encode(self.visual_encoder, image)

    def encode_text(self, text: list[str] | TextBatch) -> Tensor:
        """B texts -> (B, 1, D): the state that speaks for each."""
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        states = self.text_encoder(batch.ids, batch.mask)  # (B, T, D)
        return pool(self.text_encoder, states, batch.mask)[:, None]

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length."""
        return unit(self.vision_proj(vision.pool(self.visual_encoder, image_tokens)))

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """(B, 1, D) -> (B, E) unit length."""
        return unit(self.text_proj(text_tokens[:, 0]))
