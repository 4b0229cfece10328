"""The Q-Former: learnt queries that read an image, and a BERT beside them that reads texts.

Queries and texts share self-attention and have feed-forward layers of their own; queries alone look
at the image, in every n-th layer. The same weights read an image alone, a text alone, both
together, or write a text about what the queries have read (BLIP-2, arXiv 2301.12597, section 3.1
and figure 2). Parameters have the names of LAVIS's checkpoints below ``Qformer.``; the queries,
there ``query_tokens`` of the model, are ``Qformer.query_tokens`` here.

Dim letters: B images, K texts per image, R = K * B texts, Q queries, T text tokens, N image tokens,
C their width, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from lavis_lite.errors import ConfigError
from lavis_lite.modules.layers.init import INIT_STD, init_weights
from lavis_lite.modules.med.attention import AddNorm, Attention, Extend, KeyValue, Source
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.decoder import CachedDecoder
from lavis_lite.modules.med.embeddings import Embeddings
from lavis_lite.modules.med.head import Head
from lavis_lite.modules.med.layer import Encoder, expansion, feed_forward
from lavis_lite.modules.med.model import needed
from lavis_lite.modules.text.text_batch import TextBatch


class ImageReading(NamedTuple):
    """The reading of B images by the queries, with what they read it from.

    Attributes:
        image_kv: keys and values of the image tokens, per layer with cross-attention.
        states: (B, Q, D) of the queries.
        prefix: the queries' own keys and values per layer, (B, heads, Q, D / heads) each: what a
            text that is written about the image sees in front of it.
    """

    image_kv: list[Source]
    states: Tensor
    prefix: list[KeyValue]


class QueryLayer(nn.Module):
    """Self-attention over queries and text together; then each its own way.

    Args:
        encoder_width: width of the image tokens that queries look at; None: they do not here.
        reads_text: whether the layer has a feed-forward for texts.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_width: int,
        encoder_width: int | None,
        dropout: float,
        eps: float,
        reads_text: bool,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads, width, dropout, eps)
        if encoder_width is not None:
            self.crossattention = Attention(width, num_heads, encoder_width, dropout, eps)
        if reads_text:
            self.intermediate = expansion(width, mlp_width)
            self.output = AddNorm(mlp_width, width, dropout, eps)
        self.intermediate_query = expansion(width, mlp_width)
        self.output_query = AddNorm(mlp_width, width, dropout, eps)

    def forward(
        self,
        x: Tensor,
        num_queries: int,
        mask: Tensor | None,
        image: Source | None,
        extend: Extend | None = None,
        query_positions: Tensor | None = None,
    ) -> Tensor:
        """Map the states (R, Q + T, D) of ``num_queries`` queries and texts to the same shape.

        With ``query_positions`` (R, Q) only the states there are computed, those of the queries.
        """
        x = self.attention(x, mask=mask, extend=extend, query_positions=query_positions)
        queries, text = x[:, :num_queries], x[:, num_queries:]  # (R, Q, D), (R, T, D)
        parts = []
        if num_queries:
            if image is not None:
                queries = self.crossattention(queries, image)  # (R, Q, D)
            parts.append(feed_forward(self.intermediate_query, self.output_query, queries))
        if text.shape[1]:
            parts.append(feed_forward(self.intermediate, self.output, text))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (R, Q + T, D)


class QueryTower(nn.Module):
    """The embeddings and layers of a Q-Former, under BERT's names. See ``QFormer``."""

    def __init__(self, embeddings: Embeddings, layers: list[QueryLayer]) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = Encoder(layers)

    def fuse(self, queries: Tensor | None, text: Tensor | None) -> Tensor:
        """Normalise queries (R, Q, D), and put them in front of text embeddings (R, T, D)."""
        if queries is not None:
            queries = self.embeddings.normalize(queries)
        parts = [part for part in (queries, text) if part is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (R, Q + T, D)

    def forward(
        self,
        x: Tensor,
        num_queries: int,
        *,
        mask: Tensor | None = None,
        image_kv: Sequence[Source] = (),
        extends: Sequence[Extend] | None = None,
        queries_only: bool = False,
    ) -> Tensor:
        """Run the layers over embeddings (R, Q + T, D).

        Args:
            x: embeddings, the queries in front.
            num_queries: Q; 0 without queries.
            mask: True where a token may look, broadcastable to (R, 1, Q + T, keys).
            image_kv: per layer with cross-attention, of B images for R = K * B rows.
            extends: per layer, what is done to its keys and values before they are looked at.
            queries_only: compute in the last layer, and return, the states of the queries alone.

        Returns:
            (R, Q + T, D) states, or (R, Q, D).
        """
        images = iter(image_kv)
        places = None
        if queries_only and num_queries < x.shape[1]:
            places = torch.arange(num_queries, device=x.device).expand(len(x), -1)  # (R, Q)
        last = len(self.encoder.layer) - 1
        for number, layer in enumerate(self.encoder):
            looks = num_queries and hasattr(layer, "crossattention")
            x = layer(
                x,
                num_queries,
                mask,
                next(images) if looks else None,
                None if extends is None else extends[number],
                places if number == last else None,
            )
        return x


class QFormer(nn.Module):
    """Learnt queries with the BERT that they share self-attention with, and its head.

    Args:
        width: width D of the states.
        depth: number of layers.
        num_heads: attention heads.
        mlp_width: width inside the feed-forward layers.
        num_queries: Q.
        encoder_width: width C of the image tokens.
        cross_attention_every: queries look at the image in layer 0 and each n-th one after it.
        vocab_size: number of word embeddings V. None: no texts are read, and word embeddings, the
            texts' feed-forward and the head are left out.
        head: whether there is a head that predicts the next word.
        max_length: number of position embeddings; of the texts, queries have none.
        dropout: probability, of states and of attention weights.
        layer_norm_eps: epsilon of every LayerNorm; BERT's, as the queries are small before theirs.

    Reference: BLIP-2, https://arxiv.org/abs/2301.12597, section 3.1.
    """

    def __init__(
        self,
        *,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_width: int = 3072,
        num_queries: int = 32,
        encoder_width: int,
        cross_attention_every: int = 2,
        vocab_size: int | None,
        head: bool = True,
        max_length: int = 512,
        dropout: float = 0.1,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"qformer: width {width} does not divide into {num_heads} heads")
        if num_queries < 1 or cross_attention_every < 1:
            raise ConfigError(
                f"qformer: num_queries {num_queries}, cross_attention_every "
                f"{cross_attention_every}; each is at least 1"
            )
        self.width, self.max_length, self.num_queries = width, max_length, num_queries
        self.query_tokens = nn.Parameter(torch.empty(1, num_queries, width))
        reads_text = vocab_size is not None
        embeddings = Embeddings(vocab_size, max_length, width, dropout, layer_norm_eps)
        layers = [
            QueryLayer(
                width,
                num_heads,
                mlp_width,
                None if number % cross_attention_every else encoder_width,
                dropout,
                layer_norm_eps,
                reads_text,
            )
            for number in range(depth)
        ]
        self.bert = QueryTower(embeddings, layers)
        self.apply(init_weights)
        nn.init.normal_(self.query_tokens, std=INIT_STD)
        self.cls: Head | None = None
        if reads_text:
            self.start_from_text()
            if head:
                self.cls = Head(embeddings.word_embeddings, layer_norm_eps)

    @torch.no_grad()
    def start_from_text(self) -> None:
        """Copy the feed-forward layers of texts to those of queries, as stage 1 begins."""
        for layer in self.bert.encoder:
            layer.intermediate_query.load_state_dict(layer.intermediate.state_dict())
            layer.output_query.load_state_dict(layer.output.state_dict())

    # ---- images

    def project(self, image_tokens: Tensor) -> list[Source]:
        """Return keys and values of image tokens (B, N, C), per layer with cross-attention."""
        return [layer.crossattention.self.project(image_tokens) for layer in self._looking]

    @property
    def num_cross_layers(self) -> int:
        """The number of layers whose queries look at the image."""
        return len(self._looking)

    @property
    def _looking(self) -> list[QueryLayer]:
        layers = cast("list[QueryLayer]", list(self.bert.encoder))
        return [layer for layer in layers if hasattr(layer, "crossattention")]

    def image_context(
        self, image_tokens: Tensor, num_queries: int, num_steps: int = 1
    ) -> list[Source]:
        """Return what queries look at of image tokens (B, N, C), as ``Med.image_context`` does.

        There are too many queries for absorbed projections to pay.
        """
        return self.project(image_tokens)

    def read_image(self, image_tokens: Tensor) -> ImageReading:
        """Read image tokens (B, N, C) with the queries alone."""
        image_kv = self.project(image_tokens)
        prefix: list[KeyValue] = []

        def remember(kv: KeyValue) -> KeyValue:
            prefix.append(kv)
            return kv

        states = self.bert(
            self.bert.fuse(self.queries(len(image_tokens)), None),
            self.num_queries,
            image_kv=image_kv,
            extends=[remember] * len(self.bert.encoder.layer),
        )  # (B, Q, D)
        return ImageReading(image_kv, states, prefix)

    def query_states(self, image_tokens: Tensor, text: TextBatch | None = None) -> Tensor:
        """Return what the queries read of image tokens (B, N, C): (B, Q, D).

        Args:
            image_tokens: of B images.
            text: B texts that the queries see while they read, such as an instruction; None: none.
        """
        if text is None:
            return self.read_image(image_tokens).states
        return self.read_with_text(self.project(image_tokens), text)

    def read_with_text(self, image_kv: Sequence[Source], text: TextBatch) -> Tensor:
        """Read B images together with R = K * B texts, image-major: queries' states (R, Q, D).

        Queries and text see each other, and padding is hidden from both.

        Args:
            image_kv: of ``project``, once per image.
            text: the texts.
        """
        ids, mask = text
        real = needed(torch.cat([mask.new_ones(len(ids), self.num_queries), mask], dim=1))
        return self.bert(
            self.bert.fuse(self.queries(len(ids)), self.bert.embeddings(ids)),
            self.num_queries,
            mask=None if real is None else real[:, None, None, :],  # (R, 1, 1, Q + T)
            image_kv=image_kv,
            queries_only=True,
        )  # (R, Q, D)

    def queries(self, num_rows: int) -> Tensor:
        """Return the learnt queries for each of R rows, (R, Q, D)."""
        return self.query_tokens.expand(num_rows, -1, -1)

    # ---- texts

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the states (R, T, D) of texts alone; mask (R, T) is 1 for real tokens."""
        real = needed(mask)  # (R, T)
        return self.bert(
            self.bert.embeddings(ids), 0, mask=None if real is None else real[:, None, None, :]
        )

    def next_word_logits(self, prefix: Sequence[KeyValue], ids: Tensor) -> Tensor:
        """Return the logits (B, T, V) of each next token of B texts about B images.

        A token sees the queries of its image, itself and the tokens before it; not the image. What
        stands behind a text, its padding, it does not see either.

        Args:
            prefix: of ``read_image``; gradients go through it.
            ids: (B, T), padded on the right.
        """
        length = ids.shape[1]
        shape = (length, self.num_queries + length)  # (T, Q + T)
        visible = torch.ones(shape, dtype=torch.bool, device=ids.device).tril(self.num_queries)
        states = self.bert(
            self.bert.embeddings(ids),
            0,
            mask=visible,
            extends=[_behind(kv) for kv in prefix],
        )  # (B, T, D)
        return self.head(states)

    @property
    def head(self) -> Head:
        """The head that predicts words.

        Raises:
            ConfigError: the Q-Former was made without one.
        """
        if self.cls is None:
            raise ConfigError("this Q-Former has no head over words: it reads, it does not write")
        return self.cls


class QueryDecoder(CachedDecoder):
    """A Q-Former that writes about images, for ``lavis_lite.modules.generation.generate``.

    Args:
        qformer: with its head.
        prefix: of ``QFormer.read_image``.
    """

    def __init__(self, qformer: QFormer, prefix: Sequence[KeyValue]) -> None:
        super().__init__(qformer.head)
        self.qformer = qformer
        self.prefix = prefix

    def begin(self, num_slots: int) -> Cache:
        """Begin new texts behind the queries."""
        return Cache(self.qformer.num_queries + num_slots, self.prefix)

    def states(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the prompts (B, P), or one more token of K texts per image (K * B, 1)."""
        tower = self.qformer.bert
        x = tower.embeddings(ids, cache.position)  # (R, T, D)
        layers = [cache.layer(number) for number in range(len(tower.encoder.layer))]
        num_images = layers[0].num_rows  # finished ones have left
        states = x.reshape(num_images, -1, x.shape[-1])  # (B, P or K, D)
        num_slots = states.shape[1]
        mask = cache.begin(num_slots, x.device, num_images)
        extends = [layer.extend for layer in layers]
        states = tower(states, 0, mask=mask, extends=extends)  # (B, P or K, D)
        cache.end(num_slots, num_tokens=ids.shape[1])
        return states.reshape(x.shape)  # (B, P, D) or (K * B, 1, D)


def _behind(prefix: KeyValue) -> Extend:
    """Return a function that puts keys and values behind those of a prefix."""

    def extend(kv: KeyValue) -> KeyValue:
        return KeyValue(
            torch.cat([prefix.key, kv.key], dim=2), torch.cat([prefix.value, kv.value], dim=2)
        )

    return extend
