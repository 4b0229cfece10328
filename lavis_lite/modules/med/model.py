"""MED: one BERT that reads text, reads text with an image, or writes text about an image.

The three are modes of one parameter set (BLIP, arXiv 2201.12086, section 3.1): ``text`` is
bidirectional, ``multimodal`` adds cross-attention to the image, ``decoder`` is causal with
cross-attention. Parameters have BERT's names, so that any BERT checkpoint fits; there are no
token types and no pooler. With ``fusion_layer`` the lower layers read the text alone and the upper
ones fuse it with the image, as in ALBEF (arXiv 2107.07651, section 3.1).

Dim letters: B images, K texts per image, R = K * B texts, T tokens, S query positions, M real
tokens of all texts, N image tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.init import INIT_STD, init_weights
from lavis_lite.modules.med.absorbed_attention import absorption_pays, matmul_dtype
from lavis_lite.modules.med.attention import KeyValue, Source
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.embeddings import Embeddings
from lavis_lite.modules.med.head import Head
from lavis_lite.modules.med.layer import Encoder, Layer
from lavis_lite.modules.med.unpadding import Padding

Mode = Literal["text", "multimodal", "decoder"]


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
        cross_attention: whether the layers have cross-attention to images at all.
        fusion_layer: the first layer, counted from 0, with cross-attention: those below read the
            text alone, and mode ``text`` ends with them. 0: all layers have it, and mode ``text``
            runs all of them without it.
        position_std: standard deviation of fresh position embeddings. 0.02 is BERT's; at widths
            below about 128 it drowns the order of words, and 0.5 learns it.
    """

    unpads = True  # in training; in evaluation padding is computed as in the published code

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
    def fusion_layers(self) -> list[Layer]:
        """The layers with cross-attention to images."""
        return list(self.encoder)[self.fusion_layer :]

    def sharding_units(self) -> list[list[nn.Module]]:
        """Return the groups of modules that FSDP gathers together, unit by unit.

        Cross-attention is in no unit, because it is not run as a whole. Self-attention is a unit of
        its own, because tied towers share the rest.
        """
        units: list[list[nn.Module]] = []
        for layer in self.encoder:
            units += [[layer.attention], [layer.intermediate["dense"], layer.output]]
        return units

    def project(self, tokens: Tensor) -> list[KeyValue]:
        """Return keys and values of image tokens (B, N, encoder width), per fusion layer.

        They depend on the image alone: project once, then use them for every step, beam, candidate
        text and loss.
        """
        return [layer.crossattention.self.project(tokens) for layer in self.fusion_layers]

    def image_context(self, tokens: Tensor, num_queries: int, num_steps: int = 1) -> list[Source]:
        """Return each fusion layer's image context: projected, or absorbed if that is less work.

        Args:
            tokens: (B, N, encoder width) image tokens.
            num_queries: text tokens that will attend to each image, in total.
            num_steps: the number of decoding steps that they are spread over.
        """
        heads = [layer.crossattention.self for layer in self.fusion_layers]
        absorb = heads and absorption_pays(
            tokens, self.width, heads[0].num_heads, num_queries, num_steps
        )
        # Training needs dropout of attention weights, which absorbed attention does not have.
        if self.training or not absorb or not all(layer.has_plain_projections for layer in heads):
            return [*self.project(tokens)]
        tokens = tokens.to(matmul_dtype(tokens))  # (B, N, encoder width)
        return [layer.absorbed(tokens) for layer in heads]

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
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Compute the states of token ids.

        Args:
            ids: (R, T) token ids. With image keys of B rows, R = K * B rows are K texts per image,
                image-major; they are folded into the query axis, nothing is repeated.
            mask: (R, T) 1 for real tokens, padding on the right; None if all are real. In mode
                ``decoder`` the causal mask already hides the padding, and the states at padding
                have no meaning. Or (R, T, T), the full mask in every mode: 1 where a token sees
                another, for packed sequences or a prefix trie.
            mode: ``text``, ``multimodal`` or ``decoder``.
            image_kv: from ``project`` or ``image_context``; required in the modes ``multimodal``
                and ``decoder``, None in mode ``text``.
            image_mask: (B, N) 1 for real image tokens; None if all are.
            cache: mode ``decoder`` only, without ``mask``. The first call reads the prompts (B, T),
                later ones take one token for each of K texts per image, (K * B, 1).
            states: (R, T, D) output of mode ``text`` for these ids, from which mode ``multimodal``
                continues; needs a ``fusion_layer``.
            positions: (R, T) positions of the tokens in their texts; None: 0, 1, 2... in every row.
            query_positions: (R, S) places in each row; the last layer computes only these states.

        Returns:
            (R, T, D) states, or (R, S, D) with ``query_positions``. In training on the CPU the
            states at padding are 0, because the layers run over the real tokens alone.
        """
        assert mode in get_args(Mode), mode
        assert (image_kv is None) == (mode == "text"), f"mode {mode!r} and image_kv do not agree"
        assert states is None or (mode == "multimodal" and self.fusion_layer)
        layers = list(enumerate(self.encoder))
        if self.fusion_layer and mode == "text":
            layers = layers[: self.fusion_layer]
        if states is None:
            x = self.embeddings(ids, 0 if cache is None else cache.position, positions)  # (R, T, D)
        else:
            x, layers = states, layers[self.fusion_layer :]
        visible_tokens = needed(image_mask)  # (B, N)
        if visible_tokens is not None:
            visible_tokens = visible_tokens[:, None, None, :]  # (B, 1, 1, N)
        if cache is not None:
            assert image_kv is not None
            assert mask is None
            return self._step(x, image_kv, visible_tokens, cache)
        visible, causal = _visible(mask, causal=mode == "decoder")
        padding = Padding.from_mask(mask) if self.training and self.unpads else None
        x = x if padding is None else padding.unpad(x)  # (M, D) if unpadded
        last = layers[-1][0]
        for number, layer in layers:
            x = layer(
                x,
                visible,
                causal,
                self._context_of(number, image_kv),
                visible_tokens,
                query_positions=query_positions if number == last else None,
                padding=padding,
            )  # (R, T or S, D), or unpadded (M, D)
        return x if padding is None or query_positions is not None else padding.pad(x)  # (R, T, D)

    def _context_of(self, number: int, image_kv: Sequence[Source] | None) -> Source | None:
        """Return the image keys and values of a layer; None below ``fusion_layer``."""
        if image_kv is None or number < self.fusion_layer:
            return None
        return image_kv[number - self.fusion_layer]

    def _step(
        self, x: Tensor, image_kv: Sequence[Source], image_mask: Tensor | None, cache: Cache
    ) -> Tensor:
        """Read the prompt (B, P, D), or one more token of K texts per image (K * B, 1, D)."""
        num_rows = image_kv[0].num_rows
        # A view here would make torch.compile specialise the first layer; so it is a copy.
        states = x.reshape(num_rows, -1, x.shape[-1]).clone()  # (B, P or K, D)
        num_slots = states.shape[1]
        causal = cache.position == 0
        mask = cache.begin(num_slots, x.device, num_rows)  # (B, 1, K, slots) or None
        for number, layer in enumerate(self.encoder):
            extend = cache.layer(number).extend
            context = self._context_of(number, image_kv)
            states = layer(states, mask, causal, context, image_mask, extend)  # (B, P or K, D)
        cache.end(num_slots, num_tokens=x.shape[1])
        return states.reshape(x.shape)  # (B, P, D) or (K*B, 1, D)


def _visible(mask: Tensor | None, causal: bool) -> tuple[Tensor | None, bool]:
    """Translate a mask of ``Med.forward`` to ``mask`` and ``causal`` of ``attend``."""
    real = needed(mask)  # (R, T) or (R, T, T)
    if mask is not None and mask.ndim == 3:
        return None if real is None else real[:, None], False  # (R, 1, T, T)
    assert not causal or real is None or padded_on_the_right(real)
    return None if causal or real is None else real[:, None, None, :], causal  # (R, 1, 1, T)


def needed(mask: Tensor | None) -> Tensor | None:
    """Return the mask as booleans, or None if it hides nothing, which is tested on the CPU only.

    On an accelerator the test would wait for the device, so the mask is used as it is.
    """
    if mask is None:
        return None
    mask = mask.bool()
    if mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask.all()):
        return None
    return mask


def padded_on_the_right(mask: Tensor) -> bool:
    """Tell whether no real token follows padding; tested on the CPU only, else True."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool((mask[:, 1:] <= mask[:, :-1]).all())


class MedDecoder(nn.Module):
    """A MED with the head that predicts the next token.

    Args:
        bert: the tower; its word embeddings are also the head's output weights.
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
        """Return the next-token logits (R, T, V) of ids (R, T); see ``Med.forward``."""
        states = self.bert(
            ids, mask, mode="decoder", image_kv=image_kv, image_mask=image_mask, cache=cache
        )  # (R, T, D)
        return self.cls(states)  # (R, T, V)


def tie(encoder: Med, decoder: MedDecoder) -> None:
    """Make encoder and decoder share everything but self-attention (BLIP, section 3.2).

    The encoder takes the decoder's embeddings, cross-attention and feed-forward modules. A shared
    tensor is stored once, under the name of the tower that the model lists first.
    """
    encoder.embeddings = decoder.bert.embeddings
    for encoder_layer, decoder_layer in zip(encoder.encoder, decoder.bert.encoder, strict=True):
        if hasattr(decoder_layer, "crossattention"):
            encoder_layer.crossattention = decoder_layer.crossattention
        encoder_layer.intermediate = decoder_layer.intermediate
        encoder_layer.output = decoder_layer.output


def fusion_problem(fusion_layer: int, depth: int, cross_attention: bool) -> str | None:
    """Say why the layers from ``fusion_layer`` on cannot be those with cross-attention, or None."""
    if not fusion_layer or (cross_attention and 0 < fusion_layer < depth):
        return None
    return (
        f"med: fusion_layer {fusion_layer} of {depth} layers; it is from 1 to {depth - 1}, "
        "with cross-attention, or 0 for cross-attention in all of them"
    )
