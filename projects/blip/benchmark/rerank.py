"""Matching one image with many texts, beside transformers on repeated image tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.modules.layers.prepack import prepack as prepack_linears
from lavis_lite.projects.blip.benchmark.inputs import BERT, DTYPES, build, images, texts
from lavis_lite.projects.blip.huggingface import as_transformers
from lavis_lite.runners.benchmark.agreement import Difference, of_tensors

CLOSE = {"fp32": 1e-4, "bf16": 0.05}  # logits


@registry.register("workload", "blip_rerank")
class Rerank:
    """Matching logits of K texts for one image whose tokens are known, on random weights.

    The baseline is the text encoder and the matching head of transformers'
    ``BlipForImageTextRetrieval``, which wants the image's tokens once per text. Both get the same
    ids, padded to the longest text.

    Args:
        type: of ``blip_image_text_matching``: its sizes.
        vocab_size: tokens of the vocabulary.
        image_size: side of the image.
        texts: K.
        words: fewest and most words of a text.
        prepack: our weights (``lavis_lite.modules.layers.prepack``); CPU.
        device, precision: where, and the format of weights and activations on both sides.
    """

    unit = "texts"
    baselines = ("transformers",)

    def __init__(
        self,
        type: str = "base",
        vocab_size: int = BERT,
        image_size: int = 384,
        texts: int = 32,
        words: list[int] | None = None,
        prepack: bool = True,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount, self.precision = texts, precision
        dtype = DTYPES[precision]
        self.model = build("blip_image_text_matching", type, vocab_size, image_size=image_size)
        self.model.eval().requires_grad_(False).to(device, dtype)
        if prepack:
            prepack_linears(self.model)
        with torch.no_grad():
            self.tokens = self.model.encode_image(images(1, image_size, dtype, device))
        self.texts = self.model.tokenize(_texts(texts, words))

    def contender(self, name: str) -> Callable[[], Any]:
        """Each returns (K,) logits of "matches"."""
        if name == "ours":
            return self._ours
        theirs = as_transformers(self.model).to(self.tokens.device, self.tokens.dtype)
        batch = self.texts.replace_first(self.model.tokenizer.enc_id)

        @torch.no_grad()
        def transformers() -> Tensor:
            tokens = self.tokens.repeat(len(batch.ids), 1, 1)
            mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
            states = theirs.text_encoder(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                encoder_hidden_states=tokens,
                encoder_attention_mask=mask,
            ).last_hidden_state
            return theirs.itm_head(states[:, 0])[:, 1]

        return transformers

    @torch.no_grad()
    def _ours(self) -> Tensor:
        return self.model.rank(self.tokens, self.texts)[0]

    def differences(self, baseline: str, ours: Tensor, theirs: Tensor) -> list[Difference]:
        """Compare the logits."""
        return [of_tensors("logits", ours, theirs, tolerance=CLOSE[self.precision])]


def _texts(count: int, words: list[int] | None) -> list[str]:
    shortest, longest = words or (6, 18)
    return texts(count, shortest, longest)
