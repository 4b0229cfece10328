"""The dual encoder behind CLIP and SigLIP: image tower, text tower and a joint space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.losses.gradient_cache import CachedShared, check_cachable
from lavis_lite.losses.step_info import StepInfo
from lavis_lite.models.base import Losses, Texts, VisionLanguageModel, checked_samples, unit
from lavis_lite.models.images import as_images, as_tokens, images_of
from lavis_lite.models.tensors import as_states, width_of
from lavis_lite.models.texts import as_texts, tokenized
from lavis_lite.modules import vision
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.samples import as_samples, optional
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.pooling import pool
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.clip.formats import ClipFormats


class Features(NamedTuple):
    """Features of what was given; the fields of what was not are None.

    Attributes:
        image_embeds: (B, E) in the joint space, of any length.
        image_embeds_proj: (B, E) of unit length.
        text_embeds: (B, E) in the joint space, of any length.
        text_embeds_proj: (B, E) of unit length.
    """

    image_embeds: Tensor | None = None
    image_embeds_proj: Tensor | None = None
    text_embeds: Tensor | None = None
    text_embeds_proj: Tensor | None = None


class DualEncoder(VisionLanguageModel):
    """Images and texts as unit vectors of one space; no layer sees both.

    Args:
        visual_encoder: images (B, 3, H, W) -> tokens (B, N, D).
        text_encoder: ids and mask (B, T) -> states (B, T, D).
        tokenizer: its words are those of the text encoder.
        vision_proj: from the pooled image to the joint space, (B, D) -> (B, E).
        text_proj: from the vector that speaks for a text to the joint space, (B, D) -> (B, E).
        embed_width: width E of the joint space.
        image_size: side of the square input, or its (height, width).
        max_length: tokens that a text is cut to.
        temperature: what similarities are divided by at first; it is learnt.
        min_temperature: it is kept from falling below; 0 is no bound.
        gradient_cache: rows of a batch that are encoded at a time in training, for batches whose
            activations don't fit into memory: the same numbers for one more forward pass. 0: all.
        losses: name -> loss.

    Raises:
        ConfigError: ``gradient_cache`` with a tower whose embeddings depend on the batch.
    """

    formats = ClipFormats()

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: nn.Module,
        tokenizer: WordPiece | HfTokenizer,
        vision_proj: nn.Module,
        text_proj: nn.Module,
        *,
        embed_width: int,
        image_size: ImageSize,
        max_length: int,
        temperature: float = 0.07,
        min_temperature: float = 0.01,
        gradient_cache: int = 0,
        losses: Losses | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.max_length, self.tokenizer = image_size, max_length, tokenizer
        self.embed_width = embed_width
        self.visual_encoder, self.text_encoder = visual_encoder, text_encoder
        self.vision_proj, self.text_proj = vision_proj, text_proj
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.min_temperature = min_temperature
        self.gradient_cache = gradient_cache
        check_cachable(self, gradient_cache)
        self.add_losses(losses)

    def forward(self, samples: Samples, step_info: StepInfo | None = None) -> ModelOutput:
        """Compute the losses of a batch; the temperature is held above its bound first."""
        samples = checked_samples(samples, self)
        if self.min_temperature:
            with torch.no_grad():
                self.logit_scale.clamp_(max=-math.log(self.min_temperature))
        if not self.gradient_cache:
            return super().forward(samples, step_info)
        shared = CachedShared(self, samples, self.gradient_cache, step_info)
        return ModelOutput({name: loss(shared) for name, loss in self.losses.items()})

    @property
    def temperature(self) -> Tensor:
        """() what cosine similarities are divided by, fp32."""
        return torch.exp(-self.logit_scale.float())

    def tokenize(self, texts: str | Sequence[str]) -> TextBatch:
        """B texts to ids and mask (B, T)."""
        whole = getattr(self.text_encoder, "reads_padding", False)
        texts = as_texts(texts, "texts")
        batch = self.tokenizer.encode(texts, self.max_length, device=self.device, pad_to_max=whole)
        return TextBatch(batch.ids, torch.ones_like(batch.mask)) if whole else batch

    def encode_image(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D) tokens."""
        return vision.encode(self.visual_encoder, as_images(image, self))

    def encode_text(self, text: Texts) -> Tensor:
        """B texts -> (B, 1 + T, D): the vector that speaks for each text, then its tokens' states.

        Which token speaks for a text depends on its length, so that vector goes first, where images
        have their class token.
        """
        batch = tokenized(text, self)
        states = self.text_encoder(batch.ids, batch.mask)
        return torch.cat([pool(self.text_encoder, states, batch.mask)[:, None], states], dim=1)

    def image_features(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) unit length, fp32."""
        return unit(self.project_image(image_tokens))

    def text_features(self, text_tokens: Tensor) -> Tensor:
        """(B, 1 + T, D) -> (B, E) unit length, fp32."""
        return unit(self.project_text(text_tokens))

    def project_image(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, E) in the joint space, of any length."""
        return self.vision_proj(vision.pool(self.visual_encoder, as_tokens(image_tokens, self)))

    def project_text(self, text_tokens: Tensor) -> Tensor:
        """(B, 1 + T, D) -> (B, E) in the joint space, of any length."""
        states = as_states(text_tokens, width_of(self.text_encoder), "text_tokens")
        return self.text_proj(states[:, 0])

    @torch.no_grad()
    def extract_features(self, samples: Samples) -> Features:
        """Features of a batch, without gradients and dropout.

        Args:
            samples: ``image`` (B, 3, H, W), ``text_input`` (a text or a list of texts), or both.

        Raises:
            ConfigError: neither.
        """
        as_samples(samples)
        image, texts = optional(samples, "image"), optional(samples, "text_input")
        if image is None and texts is None:
            raise ConfigError(
                "extract_features: samples have neither `image` nor `text_input`; give one or both"
            )
        found: dict[str, Tensor] = {}
        with eval_mode(self):
            if image is not None:
                tokens = self.encode_image(images_of(samples, self))
                found["image_embeds"] = self.project_image(tokens)
                found["image_embeds_proj"] = self.image_features(tokens)
            if texts is not None:
                states = self.encode_text(as_texts(texts, "text_input"))
                found["text_embeds"] = self.project_text(states)
                found["text_embeds_proj"] = self.text_features(states)
        return Features(**found)
