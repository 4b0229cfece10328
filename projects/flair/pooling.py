"""Attention pooling whose queries are texts."""

from __future__ import annotations

from torch import Tensor, nn

from lavis_lite.errors import ConfigError


class TextConditionedPool(nn.Module):
    """Cross-attention of texts to the tokens of an image: one image vector for each text.

    Queries, keys and values are normalised first. A text may look at nothing: a key and a value of
    zeros stand beside those of the tokens.

    Args:
        width: E of texts, tokens and what is pooled.
        num_heads: attention heads.

    Raises:
        ConfigError: a width that does not divide into the heads.

    Reference: FLAIR, https://arxiv.org/abs/2412.03561, section 3.2.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or width % num_heads:
            raise ConfigError(
                f"model.num_heads: {num_heads}; the joint space, {width} wide (model.embed_width), "
                "does not divide into that many"
            )
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = nn.LayerNorm(width)
        self.norm_value = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, num_heads, batch_first=True, add_zero_attn=True
        )

    def forward(self, text_features: Tensor, image_tokens: Tensor) -> Tensor:
        """K texts (B, K, E) of each image and its tokens (B, N, E) -> (B, K, E)."""
        query = self.norm_query(text_features.to(image_tokens.dtype))
        key, value = self.norm_key(image_tokens), self.norm_value(image_tokens)
        return self.attention(query, key, value, need_weights=False)[0]
