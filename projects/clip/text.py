"""The text tower of CLIP and of SigLIP: a pre-norm transformer.

Dim letters: B texts, T tokens, D width. Parameters have the names of timm's ViT blocks, so that one
table maps the blocks of both towers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavis_lite import registry
from lavis_lite.errors import ConfigError
from lavis_lite.modules.med.attention import KeyValue, attend
from lavis_lite.modules.text.config_checks import length_problems, tokenizer_problems
from lavis_lite.modules.text.pooling import Pooling, pool_states

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
MAX_LENGTH = 77  # of CLIP's texts


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU that OpenAI's weights were trained with."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """The tanh approximation of GELU, SigLIP's."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
}


class SelfAttention(nn.Module):
    """Multi-head attention of a text to itself."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        query, *others = self.qkv(x).chunk(3, dim=-1)  # (B, T, D) each
        key, value = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in others)
        return self.proj(attend(query, KeyValue(key, value), mask, causal, dropout=0.0))


class Mlp(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, width: int, mlp_width: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, mlp_width)
        self.fc2 = nn.Linear(mlp_width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """Attention and feed-forward, each on normalised states and added to them."""

    def __init__(
        self, width: int, num_heads: int, mlp_width: int, activation: Activation, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SelfAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, mlp_width, activation)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        x = x + self.attn(self.norm1(x), mask, causal)
        return x + self.mlp(self.norm2(x))


def clip_text_problems(spec: Mapping[str, Any], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the problems of a ``clip_text`` component inside its model."""
    yield from length_problems(spec["name"], spec.get("max_length", MAX_LENGTH), model)
    yield from tokenizer_problems(model)


@registry.register("text_backbone", "clip_text", check=clip_text_problems)
class ClipText(nn.Module):
    """A pre-norm transformer over token ids, read at its last token.

    The defaults are those of CLIP's base models. SigLIP's tower is not causal, uses ``gelu_tanh``
    and ``layer_norm_eps`` 1e-6, and reads padding.

    Args:
        width: width D of the states.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_width: width inside the feed-forward.
        max_length: number of position embeddings: the most tokens of a text.
        causal: a token sees those before it only.
        activation: inside the feed-forward; OpenAI's weights need ``quick_gelu``, most of
            open_clip's ``gelu``.
        reads_padding: padding is read like text, and texts are always padded to the full length: so
            SigLIP was trained.
        pooling: whose state speaks for a text: the ``last`` token's, the ``first`` one's, or the
            ``mean``.
        layer_norm_eps: epsilon of every LayerNorm.
        position_std: standard deviation of fresh position embeddings. Words start at 0.02: much
            larger positions drown them, and little is learnt.
        vocab_size: number of word embeddings V, that of the tokenizer.

    Reference: CLIP, https://arxiv.org/abs/2103.00020, section 2.4.
    """

    def __init__(
        self,
        width: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        mlp_width: int = 2048,
        max_length: int = MAX_LENGTH,
        causal: bool = True,
        activation: Activation = "quick_gelu",
        reads_padding: bool = False,
        pooling: Pooling = "last",
        layer_norm_eps: float = 1e-5,
        position_std: float = 0.01,
        *,
        vocab_size: int,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"clip_text: width {width} does not divide into {num_heads} heads")
        if causal and pooling == "first":
            raise ConfigError(
                "clip_text: the first token of a causal tower has seen nothing of the text; "
                "use pooling: last, or causal: false"
            )
        self.width, self.max_length = width, max_length
        self.causal, self.reads_padding = causal, reads_padding
        self.pooling: Pooling = pooling
        self.token_embed = nn.Embedding(vocab_size, width)
        self.pos_embed = nn.Parameter(torch.empty(max_length, width))
        blocks = [
            Block(width, num_heads, mlp_width, activation, layer_norm_eps) for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self._draw(position_std)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T) ids, mask (B, T) 1 for real tokens, padding on the right -> (B, T, D) states.

        The states at padded positions are of no meaning, unless the tower reads padding.
        """
        num_tokens = ids.shape[1]
        assert num_tokens <= self.max_length, f"{num_tokens} tokens for {self.max_length} positions"
        # The causal mask hides padding on the right already.
        hides = mask is not None and not self.causal and not self.reads_padding
        seen = cast(Tensor, mask).bool()[:, None, None, :] if hides else None  # (B, 1, 1, T)
        x = self.token_embed(ids) + self.pos_embed[:num_tokens]
        for block in self.blocks:
            x = block(x, seen, self.causal)
        return self.norm(x)

    def pool(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) and mask (B, T) -> (B, D), one vector per text."""
        return pool_states(states, None if self.reads_padding else mask, self.pooling)

    def _draw(self, position_std: float) -> None:
        """CLIP's initial weights: deviations that fall with width, and with depth at the ends."""
        nn.init.normal_(self.token_embed.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=position_std)
        inner, depth = self.width**-0.5, len(self.blocks)
        into_residual = inner * (2 * depth) ** -0.5
        for block in self.blocks:
            deviations = {
                block.attn.qkv: inner,  # type: ignore[union-attr]
                block.attn.proj: into_residual,  # type: ignore[union-attr]
                block.mlp.fc1: (2 * self.width) ** -0.5,  # type: ignore[union-attr]
                block.mlp.fc2: into_residual,  # type: ignore[union-attr]
            }
            for linear, deviation in deviations.items():
                nn.init.normal_(linear.weight, std=deviation)  # type: ignore[arg-type, union-attr]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type, union-attr]
