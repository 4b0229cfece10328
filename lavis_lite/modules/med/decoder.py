"""Step-by-step decoding of texts about images, over a KV cache.

Dim letters: B images (B' kept ones), K texts (beams, samples) per image, P prompt tokens, T tokens,
N image tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lavis_lite.modules.med.attention import Source, compact, select
from lavis_lite.modules.med.cache import Cache
from lavis_lite.modules.med.model import MedDecoder


class GroundedDecoder:
    """A MED decoder bound to images, for ``lavis_lite.modules.generation.generate``.

    Args:
        decoder: the decoder with its head.
        image_kv: ``decoder.bert.project(image_tokens)`` (or ``image_context``), computed once and
            never repeated.
        image_mask: (B, N) 1 for real image tokens; None when all are.
    """

    def __init__(
        self, decoder: MedDecoder, image_kv: Sequence[Source], image_mask: Tensor | None = None
    ) -> None:
        self.decoder = decoder
        self._given = (compact(image_kv), image_mask)
        self._image_kv, self._image_mask = self._given
        self._cache = Cache(0)

    def start(self, prompt: Tensor, num_texts: int, max_length: int) -> Tensor:
        """Read the prompts (B, P) once per image; return the logits (B, V) of the next token."""
        self._image_kv, self._image_mask = self._given
        prompt_length = prompt.shape[1]
        self._cache = Cache(prompt_length + num_texts * (max_length - prompt_length))
        return self.decoder.cls(self._states(prompt)[:, -1])  # (B, V)

    def step(self, ids: Tensor, parents: Tensor | None = None) -> Tensor:
        """Append a token to every text; return the logits (B, K, V) of the next one.

        Args:
            ids: (B, K) the new tokens.
            parents: (B, K) the text of the same image that each one continues; None: itself.
        """
        if parents is not None:
            self._cache.reorder(parents)
        states = self._states(ids.reshape(-1, 1))  # (B*K, 1, D)
        return self.decoder.cls(states).view(*ids.shape, -1)  # (B, K, V)

    def keep(self, rows: Tensor) -> None:
        """Keep only the images ``rows`` (B',)."""
        self._cache.keep(rows)
        self._image_kv = select(self._image_kv, rows)  # of B' images
        if self._image_mask is not None:
            self._image_mask = self._image_mask.index_select(0, rows)  # (B', N)

    def _states(self, ids: Tensor) -> Tensor:
        return self.decoder.bert(
            ids,
            mode="decoder",
            image_kv=self._image_kv,
            image_mask=self._image_mask,
            cache=self._cache,
        )  # (R, T, D)
