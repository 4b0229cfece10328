"""A language model that reads a prefix of vectors with a prompt, and writes a text.

Dim letters: B rows, Q vectors of the prefix, P tokens of a prompt, T tokens of a text, D width, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from lavis_lite.modules.language.decoding import CachedWriter
from lavis_lite.modules.language.tokens import IGNORED, Tokens, pad_rows

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


class EncoderDecoderLanguage(nn.Module):
    """An encoder-decoder of transformers.

    Args:
        model: with a head over its vocabulary.
        tokens: its tokenizer.

    Attributes:
        width: D of its word embeddings, and of prefixes.
        start_id: the token that the decoder starts with.
        reads_apart: whether prompts are read apart from the texts, as an encoder does.
    """

    reads_apart: Literal[True] = True

    def __init__(self, model: PreTrainedModel, tokens: Tokens) -> None:
        super().__init__()
        self.model = model
        self.tokens = tokens
        self.width = cast(nn.Embedding, model.get_input_embeddings()).embedding_dim
        first = getattr(model.config, "decoder_start_token_id", None)
        self.start_id: int = tokens.pad_id if first is None else first

    def text_logits(
        self,
        prefix: Tensor,
        prompts: Sequence[str] | None,
        texts: Sequence[str],
        max_length: int,
        max_prompt_length: int,
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T, V) of the tokens of B texts, and which those are.

        Args:
            prefix: (B, Q, D).
            prompts: what the encoder reads behind the prefix; None: nothing.
            texts: B texts, which the decoder writes; each ends in the end token.
            max_length: tokens that a text is cut to, its end included.
            max_prompt_length: tokens that a prompt is cut to, its end included.

        Returns:
            Logits, and targets (B, T): ids, ``IGNORED`` at padding.
        """
        embeds, seen = self._read(prefix, prompts or [""] * len(texts), max_prompt_length)
        rows = [self._ended(text, max_length) for text in texts]
        ids, mask = pad_rows(rows, self.tokens.pad_id, prefix.device)
        before = torch.cat([ids.new_full((len(ids), 1), self.start_id), ids[:, :-1]], dim=1)
        output = self.model(
            inputs_embeds=embeds,
            attention_mask=seen.long(),
            decoder_input_ids=before,
            use_cache=False,
        )
        return output.logits, ids.masked_fill(~mask, IGNORED)

    def writer(
        self, prefix: Tensor, prompts: Sequence[str], max_prompt_length: int
    ) -> MemoryWriter:
        """Return what writes a text about each prefix (B, Q, D) and prompt.

        Args:
            prefix: (B, Q, D).
            prompts: B of them; "" is none.
            max_prompt_length: tokens that a prompt is cut to, its end included.
        """
        embeds, mask = self._read(prefix, prompts, max_prompt_length)
        memory = self.model.get_encoder()(inputs_embeds=embeds, attention_mask=mask.long())
        return MemoryWriter(self.model, self.start_id, memory.last_hidden_state, mask)

    def room(self, num_vectors: int, prompts: Sequence[str], max_prompt_length: int) -> int | None:
        """Return how many tokens can be written, whatever is read; None: any number."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def _read(
        self, prefix: Tensor, prompts: Sequence[str], max_length: int
    ) -> tuple[Tensor, Tensor]:
        """Embed prompts behind a prefix: (B, Q + P, D), and True where one is real."""
        rows = [self._ended(prompt, max_length) for prompt in prompts]
        ids, mask = pad_rows(rows, self.tokens.pad_id, prefix.device)
        words = self.model.get_input_embeddings()(ids)  # (B, P, D)
        embeds = torch.cat([prefix.to(words.dtype), words], dim=1)
        return embeds, torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)

    def _ended(self, text: str, max_length: int) -> list[int]:
        ids = self.tokens.ids(text)[: max_length - 1] if text else []
        return [*ids, self.tokens.end_id]


class MemoryWriter(CachedWriter):
    """A decoder bound to what an encoder has read.

    Args:
        model: the encoder-decoder.
        start_id: the token that its texts start with.
        memory: (B, L, D) states of the encoder.
        mask: (B, L), True where they are real.
    """

    def __init__(self, model: PreTrainedModel, start_id: int, memory: Tensor, mask: Tensor) -> None:
        super().__init__(model)
        self.start_id = start_id
        self.given = memory, mask
        self.memory, self.mask = self.given

    def begin(self) -> Tensor:
        """Begin new texts; return logits (B, V)."""
        self.memory, self.mask = self.given
        ids = self.mask.new_full((len(self.mask), 1), self.start_id, dtype=torch.long)
        return self._write(ids, {})

    def go_on(self, ids: Tensor) -> Tensor:
        """Read one more token (B * K, 1) of every text; return logits (B * K, V)."""
        return self._write(ids, {self.cache_name: self.cache})

    def repeat(self, num_texts: int) -> None:
        """Repeat each row of the memory ``num_texts`` times."""
        self.memory = self.memory.repeat_interleave(num_texts, dim=0)
        self.mask = self.mask.repeat_interleave(num_texts, dim=0)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the memory."""
        self.memory, self.mask = self.memory[rows], self.mask[rows]

    def _write(self, ids: Tensor, cache: dict[str, Cache]) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.memory),
            attention_mask=self.mask.long(),
            decoder_input_ids=ids,
            use_cache=True,
            **cache,
        )
        self.cache = output[self.cache_name]
        return output.logits[:, -1]
