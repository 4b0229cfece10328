"""A causal language model that goes on from a prefix of vectors: prefix, prompt, text.

Dim letters: B rows, Q vectors of the prefix, P tokens of a prompt, T tokens of a text, D width, V
vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from lavis_lite.modules.language.decoding import CachedWriter
from lavis_lite.modules.language.tokens import IGNORED, Tokens, pad_rows

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel


class CausalLanguage(nn.Module):
    """A causal model of transformers.

    Masks and positions are given to it: padding takes no position, wherever it stands.

    Args:
        model: with a head over its vocabulary.
        tokens: its tokenizer.

    Attributes:
        width: D of its word embeddings, and of prefixes.
        start_id: what stands for a text's beginning while it is written.
        takes: names of the model's arguments.
        reads_apart: whether prompts are read apart from the texts; here they are their beginning.
    """

    reads_apart: Literal[False] = False

    def __init__(self, model: PreTrainedModel, tokens: Tokens) -> None:
        super().__init__()
        self.model = model
        self.tokens = tokens
        self.width = cast(nn.Embedding, model.get_input_embeddings()).embedding_dim
        self.start_id = tokens.start_ids[0] if tokens.start_ids else tokens.end_id
        self.takes = frozenset(inspect.signature(model.forward).parameters)

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
            prompts: what each text goes on from, given and not learnt; None: nothing, and the
                texts' start token is learnt.
            texts: B texts; each ends in the end token.
            max_length: tokens that a text is cut to, its start and end included.
            max_prompt_length: tokens that a prompt is cut to; its end is kept.

        Returns:
            Logits, and targets (B, T): ids, ``IGNORED`` at prompts and padding.
        """
        bodies = [[*self.tokens.ids(text), self.tokens.end_id] for text in texts]
        if prompts is None:
            given: list[list[int]] = [[] for _ in texts]
            rows = [[*self.tokens.start_ids, *body][:max_length] for body in bodies]
        else:
            given = [self.prompt_ids(prompt, max_prompt_length) for prompt in prompts]
            rows = [[*a, *b[:max_length]] for a, b in zip(given, bodies, strict=True)]
        ids, mask = pad_rows(rows, self.tokens.pad_id, prefix.device)
        targets = ids.masked_fill(~mask, IGNORED)
        for row, prompt in enumerate(given):
            targets[row, : len(prompt)] = IGNORED
        embeds, whole_mask = self._behind(prefix, ids, mask)
        keep = {"logits_to_keep": ids.shape[1] + 1} if "logits_to_keep" in self.takes else {}
        output = self.model(**self.inputs(embeds, whole_mask), use_cache=False, **keep)
        logits = output.logits[:, -ids.shape[1] - 1 : -1]
        return logits, targets[:, -logits.shape[1] :]  # without a prefix nothing tells the first

    def writer(
        self, prefix: Tensor, prompts: Sequence[str], max_prompt_length: int
    ) -> CausalWriter:
        """Return what writes a text behind each prefix (B, Q, D) and prompt.

        Args:
            prefix: (B, Q, D).
            prompts: B of them; "" is none.
            max_prompt_length: tokens that a prompt is cut to; its end is kept.
        """
        rows = [self.prompt_ids(prompt, max_prompt_length) for prompt in prompts]
        ids, mask = pad_rows(rows, self.tokens.pad_id, prefix.device)
        embeds, seen = self._behind(prefix, ids, mask)
        # Padding goes in front of all, so that the last place is real, of an empty prompt too.
        order = seen.byte().argsort(dim=1, stable=True)  # (B, Q + P)
        embeds = embeds.gather(1, order[..., None].expand_as(embeds))
        return CausalWriter(self, embeds, seen.gather(1, order))

    def room(self, num_vectors: int, prompts: Sequence[str], max_prompt_length: int) -> int | None:
        """Return how many tokens can be written behind prefixes and prompts; None: any number.

        Args:
            num_vectors: Q of the prefixes.
            prompts: "" is none.
            max_prompt_length: tokens that a prompt is cut to.
        """
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is None:
            return None
        longest = max(
            (len(self.prompt_ids(text, max_prompt_length)) for text in prompts), default=0
        )
        return positions - num_vectors - longest

    def prompt_ids(self, prompt: str, max_length: int) -> list[int]:
        """Return the start token and the last tokens of a prompt, ``max_length`` in all."""
        start = self.tokens.start_ids
        ids = self.tokens.ids(prompt) if prompt else []
        return [*start, *ids[max(len(ids) + len(start) - max_length, 0) :]]

    def _behind(self, prefix: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Put tokens behind a prefix: embeddings (B, Q + T, D), True where they are real."""
        words = self.model.get_input_embeddings()(ids)  # (B, T, D)
        embeds = torch.cat([prefix.to(words.dtype), words], dim=1)
        return embeds, torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)

    def inputs(self, embeds: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return a model's arguments for embeddings whose last ones are not in its cache yet."""
        inputs = {"inputs_embeds": embeds, "attention_mask": mask.long()}
        if "position_ids" in self.takes:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
            inputs["position_ids"] = positions[:, -embeds.shape[1] :]
        return inputs


class CausalWriter(CachedWriter):
    """A causal language model bound to prefixes and prompts.

    Args:
        language: the model.
        embeds: (B, L, D) of both.
        mask: (B, L), True where they are real.
    """

    def __init__(self, language: CausalLanguage, embeds: Tensor, mask: Tensor) -> None:
        super().__init__(language.model)
        self.language = language
        self.embeds, self.given_mask = embeds, mask
        self.mask = mask

    def begin(self) -> Tensor:
        """Read prefixes and prompts into a new cache; return logits (B, V)."""
        self.mask = self.given_mask
        return self._read(self.embeds, {})

    def go_on(self, ids: Tensor) -> Tensor:
        """Read one more token (B * K, 1) of every text; return logits (B * K, V)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(ids.shape)], dim=1)
        embeds = self.model.get_input_embeddings()(ids)
        return self._read(embeds, {self.cache_name: self.cache})

    def repeat(self, num_texts: int) -> None:
        """Repeat each row of the mask ``num_texts`` times."""
        self.mask = self.mask.repeat_interleave(num_texts, dim=0)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the mask."""
        self.mask = self.mask.index_select(0, rows)

    def _read(self, embeds: Tensor, cache: dict[str, Cache]) -> Tensor:
        inputs = self.language.inputs(embeds, self.mask)
        keep = {"logits_to_keep": 1} if "logits_to_keep" in self.language.takes else {}
        output = self.model(**inputs, **cache, **keep, use_cache=True)
        self.cache = output[self.cache_name]
        return output.logits[:, -1]
