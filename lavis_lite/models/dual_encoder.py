"""Dual encoders: an image tower, a text tower and a joint space, where no layer sees both."""

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
from lavis_lite.models.texts import RankTexts, as_texts, candidates, matched, tokenized
from lavis_lite.modules import vision
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.output import ModelOutput, Samples
from lavis_lite.modules.samples import as_samples, optional
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.pooling import pool
from lavis_lite.modules.text.text_batch import TextBatch
from lavis_lite.modules.text.wordpiece import WordPiece


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


class PairwiseDualEncoder(DualEncoder):
    """A dual encoder with a learnt bias, for losses that judge every pair by itself (``sigmoid``).

    So its cosines are calibrated, and it can `match` as well: the logit of a pair says whether the
    text holds of the image.

    Args:
        logit_bias: what is added to a pair's logit at first; it is learnt.
        losses: name -> loss.

    The others are those of ``DualEncoder``.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343.
    """

    logit_bias: nn.Parameter

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
        temperature: float = 0.1,
        min_temperature: float = 0.0,
        logit_bias: float = -10.0,
        gradient_cache: int = 0,
        losses: Losses | None = None,
    ) -> None:
        super().__init__(
            visual_encoder,
            text_encoder,
            tokenizer,
            vision_proj,
            text_proj,
            embed_width=embed_width,
            image_size=image_size,
            max_length=max_length,
            temperature=temperature,
            min_temperature=min_temperature,
            gradient_cache=gradient_cache,
        )
        self.logit_bias = nn.Parameter(torch.tensor(logit_bias))
        self.add_losses(losses)

    def match(self, image_tokens: Tensor, text: Texts) -> Tensor:
        """(B, N, D) and B texts -> (B, 2) logits, fp32: does not match, matches.

        Raises:
            ConfigError: more or fewer texts than images.
        """
        tokens = as_tokens(image_tokens, self)
        texts = self._features(matched(text, len(tokens), self))
        logits = self._logits(self._similarities(tokens, texts[:, None]))  # (B, 1)
        return torch.cat([torch.zeros_like(logits), logits], dim=1)

    def rank(self, image_tokens: Tensor, texts: RankTexts) -> Tensor:
        """(B, N, D) and K texts per image -> (B, K) logits of "matches", fp32.

        Args:
            image_tokens: from ``encode_image``.
            texts: K texts for each image; K texts for all of them; or rows that are tokenised
                already, image-major.

        Raises:
            ConfigError: not the same number of texts for every image.
        """
        tokens = as_tokens(image_tokens, self)
        batch, shared = candidates(texts, len(tokens), self)
        rows = self._features(batch)
        texts_of_each = rows if shared else rows.unflatten(0, (len(tokens), -1))
        return self._logits(self._similarities(tokens, texts_of_each))

    def _similarities(self, image_tokens: Tensor, text_features: Tensor) -> Tensor:
        """Cosines of images and texts, by which pairs are judged.

        Args:
            image_tokens: (B, N, D).
            text_features: (K, E) of the same K texts for all images, or (B, K, E).

        Returns:
            (B, K), fp32.
        """
        images = self.image_features(image_tokens)
        if text_features.ndim == 2:
            return cosines(images, text_features)
        return (text_features * images[:, None]).sum(dim=-1)

    def _features(self, texts: Texts) -> Tensor:
        return self.text_features(self.encode_text(texts))

    def _logits(self, cosine: Tensor) -> Tensor:
        return cosine / self.temperature + self.logit_bias.float()
