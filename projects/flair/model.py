"""flair: a dual encoder whose image embedding depends on the text that it is compared with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.config.image_size import ImageSize
from lavis_lite.errors import ConfigError
from lavis_lite.models.base import Losses, LossSpecs, Spec, unit
from lavis_lite.models.build_dual import Projection, build_dual, describe_dual, dual_problems
from lavis_lite.models.dual_encoder import PairwiseDualEncoder
from lavis_lite.models.images import as_tokens
from lavis_lite.models.tensors import as_states
from lavis_lite.modules.text.hf_tokenizer import HfTokenizer
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.flair.pooling import TextConditionedPool


class Flair(PairwiseDualEncoder):
    """Two towers, and attention of each text over the tokens of each image.

    ``image_features`` and ``text_features`` are the global ones, by which candidates are found;
    ``match`` and ``rank`` compare a text with what it sees in an image.

    Args:
        pool: texts (B, K, E) and image tokens (B, N, E) -> (B, K, E).

    The others are those of ``PairwiseDualEncoder``.

    Reference: FLAIR, https://arxiv.org/abs/2412.03561.
    """

    def __init__(
        self,
        visual_encoder: nn.Module,
        text_encoder: nn.Module,
        tokenizer: WordPiece | HfTokenizer,
        vision_proj: nn.Module,
        text_proj: nn.Module,
        pool: nn.Module,
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
            logit_bias=logit_bias,
            gradient_cache=gradient_cache,
        )
        self.pool = pool
        self.add_losses(losses)

    def conditioned_features(self, image_tokens: Tensor, text_features: Tensor) -> Tensor:
        """Embed B images as each of K texts sees them.

        Args:
            image_tokens: (B, N, D), from ``encode_image``. Patches alone are looked at, not the
                prefix tokens before them.
            text_features: (B, K, E), from ``text_features``: K texts of each image.

        Returns:
            (B, K, E) unit length, fp32.

        Raises:
            ConfigError: another shape, or not as many rows of texts as images.
        """
        tokens = as_tokens(image_tokens, self)
        texts = as_states(
            text_features, self.embed_width, "text_features", "B, K, E", "`text_features`"
        )
        if len(texts) != len(tokens):
            raise ConfigError(
                f"text_features: {tuple(texts.shape)} for {len(tokens)} images; (B, K, E) with a "
                "row of K texts for each image is expected"
            )
        first = getattr(self.visual_encoder, "num_prefix_tokens", 0)
        return unit(self.pool(texts, self.vision_proj(tokens[:, first:])))

    def _similarities(self, image_tokens: Tensor, text_features: Tensor) -> Tensor:
        texts = text_features.expand(len(image_tokens), *text_features.shape[-2:])  # (B, K, E)
        return (self.conditioned_features(image_tokens, texts) * texts).sum(dim=-1)


@registry.register("model", "flair", check=dual_problems)
@describe_dual
def flair(
    vision: Spec,
    text: Spec,
    image_size: ImageSize = 224,
    tokenizer: str | None = None,
    embed_width: int | None = 512,
    max_length: int | None = None,
    vision_projection: Projection = "linear",
    text_projection: Projection = "linear",
    num_heads: int = 8,
    temperature: float = 0.1,
    min_temperature: float = 0.0,
    logit_bias: float = -10.0,
    gradient_cache: int = 0,
    losses: LossSpecs | None = None,
) -> Flair:
    """Two towers, and attention of each text over the tokens of each image.

    Args:
        num_heads: of the attention of texts to image tokens.
        logit_bias: what is added to a pair's logit at first; it is learnt.

    Reference: FLAIR, https://arxiv.org/abs/2412.03561.
    """

    def assembled(*parts: Any, embed_width: int, **settings: Any) -> Flair:
        pool = TextConditionedPool(embed_width, num_heads)
        return Flair(*parts, pool, embed_width=embed_width, logit_bias=logit_bias, **settings)

    return build_dual(
        assembled,
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
