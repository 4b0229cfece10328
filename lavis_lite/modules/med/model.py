"""MED: one BERT that reads text, reads text with an image, or writes text about an image.

The three are modes of one parameter set (BLIP, arXiv 2201.12086, section 3.1): ``text`` is
bidirectional, ``multimodal`` adds cross-attention to the image, ``decoder`` is causal with
cross-attention. Parameters have BERT's names, so that any BERT checkpoint fits; there are no
token types and no pooler. With ``fusion_layer`` the lower layers read the text alone and the upper
ones fuse it with the image, as in ALBEF (arXiv 2107.07651, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.init import INIT_STD, init_weights
from lavis_lite.modules.layers.linear import Linear, gelu_of
from lavis_lite.modules.med.absorbed_attention import format_of_products, pays
from lavis_lite.modules.med.attention import AddNorm, Attention, Extend, KeyValue, Source
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.embeddings import Embeddings
from lavis_lite.modules.med.head import Head
from lavis_lite.modules.med.unpadding import Padding

Mode = Literal["text", "multimodal", "decoder"]


class Layer(nn.Module):
    """Self-attention, cross-attention where the mode asks for it, feed-forward."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        encoder_width: int | None,
        dropout: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, width, dropout, eps)
        if encoder_width is not None:
            self.crossattention = Attention(width, num_heads, encoder_width, dropout, eps)
        self.intermediate = nn.ModuleDict({"dense": Linear(width, mlp_width)})
        self.output = AddNorm(mlp_width, width, dropout, eps)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        causal: bool,
        image: Source | None,
        image_mask: Tensor | None,
        extend: Extend | None = None,
        wanted: Tensor | None = None,
        padding: Padding | None = None,
    ) -> Tensor:
        """(R, T, D) states to (R, T, D), or to those ``wanted`` (R, S, D); see ``Med.forward``.

        With ``padding`` (M, D) of the real tokens to such.
        """
        x = self.attention(
            x, mask=mask, causal=causal, extend=extend, padding=padding, wanted=wanted
        )
        if wanted is not None:  # from here on tokens do not meet: nothing reads the others
            padding = None
        if image is not None:
            x = self.crossattention(x, image, mask=image_mask, padding=padding)
        return self.output(gelu_of(self.intermediate["dense"], x), x)


class Encoder(nn.Module):
    """The layers, under BERT's name ``encoder.layer.N``."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(cast(Iterable[Layer], self.layer))


class Med(nn.Module):
    """The mixture of encoder-decoder, without a head.

    Args:
        width: width D of the states.
        depth: number of layers.
        num_heads: attention heads.
        mlp_width: width inside the feed-forward.
        vocab_size: number of word embeddings V, that of the tokenizer.
        encoder_width: width of the image tokens; None only without cross-attention.
        max_length: number of position embeddings.
        dropout: probability, of states and of attention weights.
        layer_norm_eps: epsilon of every LayerNorm.
        cross_attention: whether the layers can look at an image at all.
        fusion_layer: the first layer, counted from 0, that can: those below read the text alone,
            and mode ``text`` ends with them. 0: all can, and mode ``text`` runs all, not looking.
        position_std: standard deviation of fresh position embeddings. 0.02 is BERT's; at widths
            below about 128 it drowns the order of words, and 0.5 learns it.
    """

    leaves_out_padding = True  # in training; otherwise users see what the published code computes

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_width: int = 3072,
        vocab_size: int,
        encoder_width: int | None,
        max_length: int = 512,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
        cross_attention: bool = True,
        fusion_layer: int = 0,
        position_std: float = INIT_STD,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"med: width {width} does not divide into {num_heads} heads")
        if cross_attention and encoder_width is None:
            raise ConfigError("med: cross-attention needs encoder_width, the image tokens' width")
        if problem := fusion_problem(fusion_layer, depth, cross_attention):
            raise ConfigError(problem)
        self.width = width
        self.max_length = max_length
        self.fusion_layer = fusion_layer
        source_width = encoder_width if cross_attention else None
        self.embeddings = Embeddings(vocab_size, max_length, width, dropout, layer_norm_eps)
        self.encoder = Encoder(
            [
                Layer(
                    width,
                    num_heads,
                    mlp_width,
                    source_width if number >= fusion_layer else None,
                    dropout,
                    layer_norm_eps,
                )
                for number in range(depth)
            ]
        )
        self.apply(init_weights)
        nn.init.normal_(self.embeddings.position_embeddings.weight, std=position_std)

    @property
    def fusing(self) -> list[Layer]:
        """The layers that can look at an image."""
        return list(self.encoder)[self.fusion_layer :]

    def sharding_units(self) -> list[list[nn.Module]]:
        """Parts that FSDP gathers together, one unit after the other.

        Cross-attention is none of them: it is not run as a whole. Self-attention stands alone, as
        towers that are tied share the rest.
        """
        units: list[list[nn.Module]] = []
        for layer in self.encoder:
            units += [[layer.attention], [layer.intermediate["dense"], layer.output]]
        return units

    def project(self, tokens: Tensor) -> list[KeyValue]:
        """Cross-attention keys and values of image tokens (B, N, encoder width), per fusing layer.

        They depend on the image alone: project once, then use them for every step, beam, candidate
        text and loss.
        """
        return [layer.crossattention.self.project(tokens) for layer in self.fusing]

    def look_at(self, tokens: Tensor, num_queries: int, num_steps: int = 1) -> list[Source]:
        """What takes the least work to look at image tokens: projected or not, per fusing layer.

        Args:
            tokens: (B, N, encoder width).
            num_queries: text tokens that will look at each image, in all.
            num_steps: in how many steps they come, where a text is written.
        """
        heads = [layer.crossattention.self for layer in self.fusing]
        less = heads and pays(tokens, self.width, heads[0].num_heads, num_queries, num_steps)
        # Training drops attention weights, which only attention to keys and values does.
        if self.training or not less or not all(layer.projects_plainly for layer in heads):
            return [*self.project(tokens)]
        tokens = tokens.to(format_of_products(tokens))
        return [layer.unprojected(tokens) for layer in heads]

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        mode: Mode = "text",
        image_kv: Sequence[Source] | None = None,
        image_mask: Tensor | None = None,
        cache: Cache | None = None,
        states: Tensor | None = None,
        positions: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Token ids to states.

        Args:
            ids: (R, T) token ids. With image keys of B rows, R = K * B rows are K texts per image,
                image-major; they are folded into the query axis, nothing is repeated.
            mask: (R, T) 1 for real tokens, padding on the right; None when all are real. In mode
                ``decoder`` the causal mask hides the padding already, and the states at padded
                positions are of no meaning. Or (R, T, T), in any mode all that is hidden: 1 where
                a token sees another, for several texts in a row or a tree of them.
            mode: ``text``, ``multimodal`` or ``decoder``.
            image_kv: from ``project`` or ``look_at``; exactly in the modes that look at an image.
            image_mask: (B, N) 1 for real image tokens; None when all are.
            cache: mode ``decoder`` only, without ``mask``. The first call reads the prompts (B, T),
                later ones take one token for each of K texts per image, (K * B, 1).
            states: (R, T, D) what mode ``text`` gave for these ids: mode ``multimodal`` goes on
                from there, where there is a ``fusion_layer``, and need not read them again.
            positions: (R, T) of the tokens in their texts; None: 0, 1, 2... in every row.
            wanted: (R, S) places of a row whose states are asked for; the last layer computes no
                others.

        Returns:
            (R, T, D) states, or (R, S, D) of what is ``wanted``. In training on the CPU those at
            padding are 0: the layers run over the real tokens alone.
        """
        assert mode in get_args(Mode), mode
        assert (image_kv is None) == (mode == "text"), f"mode {mode!r} and image_kv do not agree"
        assert states is None or (mode == "multimodal" and self.fusion_layer)
        layers = list(enumerate(self.encoder))
        if self.fusion_layer and mode == "text":
            layers = layers[: self.fusion_layer]
        if states is None:
            x = self.embeddings(ids, 0 if cache is None else cache.position, positions)
        else:
            x, layers = states, layers[self.fusion_layer :]
        seen = needed(image_mask)
        seen = None if seen is None else seen[:, None, None, :]  # (B, 1, 1, N)
        if cache is not None:
            assert image_kv is not None
            assert mask is None
            return self._step(x, image_kv, seen, cache)
        visible, causal = _visible(mask, causal=mode == "decoder")
        padding = Padding.of(mask) if self.training and self.leaves_out_padding else None
        x = x if padding is None else padding.take(x)
        last = layers[-1][0]
        for number, layer in layers:
            own = self._of_layer(number, image_kv)
            asked = wanted if number == last else None
            x = layer(x, visible, causal, own, seen, wanted=asked, padding=padding)
        return x if padding is None or wanted is not None else padding.put(x)

    def _of_layer(self, number: int, image_kv: Sequence[Source] | None) -> Source | None:
        """What a layer looks at, None where it cannot or shall not."""
        looks = image_kv is not None and number >= self.fusion_layer
        return image_kv[number - self.fusion_layer] if looks else None  # type: ignore[index]

    def _step(
        self, x: Tensor, image_kv: Sequence[Source], image_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """The prompt (B, P, D), or one more token of K texts per image (K * B, 1, D)."""
        num_rows = image_kv[0].num_rows
        # (B, P or K, D). No view: for one, compiling would make the first layer a code of its own.
        states = x.reshape(num_rows, -1, x.shape[-1]).clone()
        num_slots = states.shape[1]
        causal = cache.position == 0
        mask = cache.begin(num_slots, x.device, num_rows)
        for number, layer in enumerate(self.encoder):
            extend = cache.slots(number).extend
            seen = self._of_layer(number, image_kv)
            states = layer(states, mask, causal, seen, image_mask, extend)
        cache.end(num_slots, num_tokens=x.shape[1])
        return states.reshape(x.shape)


def _visible(mask: Tensor | None, causal: bool) -> tuple[Tensor | None, bool]:
    """What ``attend`` takes for a mask as of ``Med.forward``, and whether it is causal besides."""
    real = needed(mask)
    if mask is not None and mask.ndim == 3:
        return None if real is None else real[:, None], False  # (R, 1, T, T)
    assert not causal or real is None or padded_on_the_right(real)
    return None if causal or real is None else real[:, None, None, :], causal  # (R, 1, 1, T)


def needed(mask: Tensor | None) -> Tensor | None:
    """The mask as booleans, or None where it hides nothing and reading it costs nothing (CPU).

    On an accelerator the look would wait for the device, so the mask is simply used.
    """
    if mask is None:
        return None
    mask = mask.bool()
    if mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask.all()):
        return None
    return mask


def padded_on_the_right(mask: Tensor) -> bool:
    """Whether no real token follows padding (looked at on the CPU only)."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


class MedDecoder(nn.Module):
    """A MED with the head that predicts the next token.

    Args:
        bert: the tower; its word embeddings are the head's output weights too.
    """

    def __init__(self, bert: Med) -> None:
        super().__init__()
        self.bert = bert
        self.cls = Head(bert.embeddings.word_embeddings, bert.embeddings.LayerNorm.eps)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        image_kv: Sequence[Source],
        image_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """(R, T) ids to the logits (R, T, V) of each next token; see ``Med.forward``."""
        states = self.bert(
            ids, mask, mode="decoder", image_kv=image_kv, image_mask=image_mask, cache=cache
        )
        return self.cls(states)


def tie(encoder: Med, decoder: MedDecoder) -> None:
    """Makes encoder and decoder share everything but self-attention (BLIP, section 3.2).

    The encoder takes the decoder's embeddings, cross-attention and feed-forward modules. A name
    that is shared is stored once and listed under the encoder, when that comes first.
    """
    encoder.embeddings = decoder.bert.embeddings
    for mine, theirs in zip(encoder.encoder, decoder.bert.encoder, strict=True):
        if hasattr(theirs, "crossattention"):
            mine.crossattention = theirs.crossattention
        mine.intermediate = theirs.intermediate
        mine.output = theirs.output


def fusion_problem(fusion_layer: int, depth: int, cross_attention: bool) -> str | None:
    """Why layers from ``fusion_layer`` on cannot be those that look at an image, or None."""
    if not fusion_layer or (cross_attention and 0 < fusion_layer < depth):
        return None
    return (
        f"med: fusion_layer {fusion_layer} of {depth} layers; it is from 1 to {depth - 1}, "
        "with cross-attention, or 0 for cross-attention in all of them"
    )
