"""siglip: a dual encoder with an independent sigmoid loss per image-text pair."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.models.base import Losses, LossSpecs, Spec, Texts
from lavis_lite.models.texts import RankTexts, candidates, matched
from lavis_lite.modules.layers.similarity import cosines
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.clip.build import Projection, build_dual, describe_dual, dual_problems
from lavis_lite.projects.clip.dual import DualEncoder


class Siglip(DualEncoder):
    """A dual encoder with a learnt bias, for the loss ``sigmoid``; so its cosines are calibrated.

    It can `match` as well: the logit of a pair says whether the text holds of the image.

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
        images = self.image_features(image_tokens)
        texts = self._features(matched(text, len(images), self))
        logits = self._logits((images * texts).sum(dim=1))
        return torch.stack([torch.zeros_like(logits), logits], dim=1)

    def rank(self, image_tokens: Tensor, texts: RankTexts) -> Tensor:
        """(B, N, D) and K texts per image -> (B, K) logits of "matches", fp32.

        Args:
            image_tokens: from ``encode_image``.
            texts: K texts for each image; K texts for all of them; or rows that are tokenised
                already, image-major.

        Raises:
            ConfigError: not the same number of texts for every image.
        """
        images = self.image_features(image_tokens)
        batch, shared = candidates(texts, len(images), self)
        rows = self._features(batch)
        if shared:
            return self._logits(cosines(images, rows))
        own = rows.unflatten(0, (len(images), -1))  # (B, K, E)
        return self._logits((own * images[:, None]).sum(dim=-1))

    def _features(self, texts: Texts) -> Tensor:
        return self.text_features(self.encode_text(texts))

    def _logits(self, cosine: Tensor) -> Tensor:
        return cosine / self.temperature + self.logit_bias.float()


@registry.register("model", "siglip", check=dual_problems)
@describe_dual
def siglip(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int | None = None,
    max_length: int | None = None,
    vision_projection: Projection = "none",
    text_projection: Projection = "affine",
    temperature: float = 0.1,
    min_temperature: float = 0.0,
    logit_bias: float = -10.0,
    gradient_cache: int = 0,
    losses: LossSpecs | None = None,
) -> Siglip:
    """A dual encoder with a learnt bias, for the loss ``sigmoid``; so its cosines are calibrated.

    Args:
        logit_bias: what is added to a pair's logit at first; it is learnt.

    Reference: SigLIP, https://arxiv.org/abs/2303.15343.
    """
    return build_dual(
        functools.partial(Siglip, logit_bias=logit_bias),
        vision,
        text,
        image_size,
        tokenizer,
        embed_width,
        max_length,
        vision_projection,
        text_projection,
        temperature,
        min_temperature,
        gradient_cache,
        losses,
    )
