"""What models start from whose texts look at images: towers, a tokenizer, and the joint space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError, suggest
from lavis_lite.models.base import VisionLanguageModel, unit, width_of
from lavis_lite.modules import vision
from lavis_lite.modules.med.bert_weights import load_bert
from lavis_lite.modules.med.model import Med, MedDecoder
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.load_tokenizer import load_tokenizer
from lavis_lite.modules.text.text_batch import ADDED, TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece

Spec = Mapping[str, Any]
Texts = list[str] | TextBatch


class Seeing:
    """Images as tokens. Needs ``visual_encoder``."""

    visual_encoder: nn.Module

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return vision.encode(self.visual_encoder, image)


class Reads:
    """A text encoder, with or without a head over the vocabulary. Needs ``text_encoder``."""

    text_encoder: Med | MedDecoder

    @property
    def text_tower(self) -> Med:
        """The tower of the text encoder."""
        encoder = self.text_encoder
        return encoder.bert if isinstance(encoder, MedDecoder) else encoder


class GroundedModel(Seeing, VisionLanguageModel):
    """An image tower and a tokenizer: what models start from whose texts look at images.

    Args:
        vision: the vision encoder's component.
        image_size: side of the square input, or its (height, width).
        tokenizer: a vocabulary's folder, file or hub id; None is the small one of the package.
        max_length: tokens that a text is cut to.
    """

    added_tokens: tuple[str, ...] = ADDED  # what starts a text, beside [CLS]
    tokenizer: WordPiece
    max_length: int

    def __init__(
        self, vision: Spec, image_size: ImageSize, tokenizer: str | None, max_length: int
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.max_length = max_length
        self.tokenizer = load_tokenizer(tokenizer, self.added_tokens)
        self.visual_encoder = registry.build("vision_encoder", vision, image_size=image_size)
        self.image_width = width_of(self.visual_encoder, "vision", vision)

    def build_text(self, text: Spec, source_width: int | None = None) -> Med:
        """A text tower that can look at this model's images, or at states of another width."""
        tower = registry.build(
            "text_backbone",
            text,
            vocab_size=len(self.tokenizer),
            encoder_width=source_width or self.image_width,
        )
        if not isinstance(tower, Med):
            raise ConfigError(
                f"model.text: {type(self).__name__} needs a text backbone with cross-attention, "
                f"such as 'med'; {text['name']!r} has none"
            )
        return tower

    def build_decoder(self, text: Spec, source_width: int | None = None) -> MedDecoder:
        """A text tower that writes; where it starts from a BERT, its head starts from BERT's."""
        decoder = MedDecoder(self.build_text(text, source_width))
        if text["name"] == "med" and text.get("pretrained"):
            load_bert(decoder, text["pretrained"])
        return decoder

    def tokenize(self, texts: list[str]) -> TextBatch:
        """B texts to ids and mask (B, T), [CLS] first."""
        return self.tokenizer.encode(texts, self.max_length, device=self.device)


class JointSpace(Seeing, Reads):
    """Images and texts as unit vectors of one space; online towers or their momentum copy.

    Needs ``visual_encoder``, ``text_encoder``, ``vision_proj``, ``text_proj``, ``tokenize``.
    """

    vision_proj: nn.Linear
    text_proj: nn.Linear
    tokenize: Any

    def encode_text(self, text: Texts) -> Tensor:
        """B texts -> (B, T, D) states of the text alone."""
        batch = text if isinstance(text, TextBatch) else self.tokenize(text)
        return self.text_tower(batch.ids, batch.mask, mode="text")

    def image_embeds(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length, fp32."""
        return unit(self.vision_proj(vision.pool(self.visual_encoder, image_tokens)))

    def text_embeds(self, text_tokens: Tensor) -> Tensor:
        """(B, T, D) -> (B, E) unit length, fp32."""
        return unit(self.text_proj(text_tokens[:, 0]))


def texts_of(samples: Samples, num_images: int) -> list[str]:
    """The texts of a batch, one per image; a single str goes with every image.

    Raises:
        ConfigError: more or fewer texts than images.
    """
    texts = samples.get("text_input")
    if texts is None:
        near = suggest("text_input", samples)
        raise ConfigError(f"samples have no 'text_input'.{near} They have: {', '.join(samples)}")
    if isinstance(texts, str):
        return [texts] * num_images
    if len(texts) != num_images:
        raise ConfigError(
            f"text_input: {len(texts)} texts for {num_images} images; it takes one for each"
        )
    return list(texts)


def add_projections(model: Any, embed_width: int) -> None:
    """Give a model with both towers the projections of a JointSpace."""
    model.embed_width = embed_width
    model.vision_proj = nn.Linear(model.image_width, embed_width)
    model.text_proj = nn.Linear(model.text_tower.width, embed_width)
