"""Step-by-step decoding of texts about images, over a KV cache.

Dim letters: B images (B' kept ones), K texts (beams, samples) per image, P prompt tokens, T tokens,
N image tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lavis_lite.modules.med.attention import Source, compact, select
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.model import MedDecoder


class CachedDecoder:
    """The steps of a decoder over a KV cache, for ``lavis_lite.modules.generation.generate``.

    A subclass says what a text sees from its start (``begin``) and reads tokens (``states``).

    Args:
        head: from states (..., D) to logits (..., V).
    """

    def __init__(self, head: nn.Module) -> None:
        self._head = head
        self._cache = Cache(0)

    def begin(self, num_slots: int) -> Cache:
        """Begin new texts: return a cache with room for ``num_slots`` tokens per image."""
        raise NotImplementedError

    def states(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the ids (R, T) behind those of the cache; return their states (R, T, D)."""
        raise NotImplementedError

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        """Read the prompts (B, P) once per image; return the logits (B, V) of the next token."""
        prompt_length = prompt.shape[1]
        self._cache = self.begin(prompt_length + num_texts * (max_length - prompt_length))
        return self._head(self.states(prompt, self._cache)[:, -1])  # (B, V)

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append a token to every text; return the logits (B, K, V) of the next one.

        Args:
            ids: (B, K) the new tokens.
            parents: (B, K) the text of the same image that each one continues; None: itself.
        """
        if parents is not None:
            self._cache.reorder(parents)
        states = self.states(ids.reshape(-1, 1), self._cache)  # (B*K, 1, D)
        return self._head(states).view(*ids.shape, -1)  # (B, K, V)

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        self._cache.keep(rows)


class GroundedDecoder(CachedDecoder):
    """A MED decoder bound to images, which texts look at by cross-attention.

    Args:
        decoder: the decoder with its head.
        image_kv: ``decoder.bert.project(image_tokens)`` (or ``image_context``), computed once and
            never repeated.
        image_mask: (B, N) 1 for real image tokens; None when all are.
    """

    def __init__(
        self, decoder: MedDecoder, image_kv: Sequence[Source], image_mask: Tensor | None = None
    ) -> None:
        super().__init__(decoder.cls)
        self.decoder = decoder
        self._given = (compact(image_kv), image_mask)
        self._image_kv, self._image_mask = self._given

    def begin(self, num_slots: int) -> Cache:
        """Begin new texts about all images."""
        self._image_kv, self._image_mask = self._given
        return Cache(num_slots)

    def states(self, ids: Tensor, cache: Cache) -> Tensor:
        """Read the ids (R, T); return their states (R, T, D)."""
        return self.decoder.bert(
            ids,
            mode="decoder",
            image_kv=self._image_kv,
            image_mask=self._image_mask,
            cache=cache,
        )  # (R, T, D)

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        super().keep(rows)
        self._image_kv = select(self._image_kv, rows)  # of B' images
        if self._image_mask is not None:
            self._image_mask = self._image_mask.index_select(0, rows)  # (B', N)
