"""Writing captions, beside transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lavis_lite import registry
from lavis_lite.modules.layers.compile import compile_towers
from lavis_lite.modules.layers.prepack import prepack as prepack_linears
from lavis_lite.projects.blip.benchmark.inputs import BERT, DTYPES, build, images
from lavis_lite.projects.blip.huggingface import as_transformers
from lavis_lite.runners.benchmark.agreement import Difference, of_lists, of_tensors

CLOSE = {"fp32": 1e-3, "bf16": 0.15}  # logits, whose spread is about 0.5


@registry.register("workload", "blip_captions")
class Captions:
    """Captions of a batch of images, all of one length, on random weights.

    The baseline is ``BlipForConditionalGeneration.generate`` with the same weights, pixels and
    prompt. Compared are the logits of a given text and, for a beam search, the captions: in fp32
    all have to be the same; in bf16, where rounding decides between beams that are close, the
    share that differs is noted.

    Args:
        type: of ``blip_caption``: its sizes.
        vocab_size: tokens of the vocabulary.
        image_size: side of the images.
        batch: images at a time.
        method: ``beam``, ``greedy`` or ``nucleus`` (p 0.9).
        num_beams: of a beam search.
        num_captions: texts per image.
        num_tokens: that each text has after the prompt.
        encode: False: image tokens are given, and only decoding is measured.
        prepack: our weights (``modules.layers.prepack``); CPU, and not where it compiles.
        compile: ``torch.compile`` the layers of our towers.
        device, precision: where, and the format of weights and activations on both sides.
    """

    unit = "captions"
    baselines = ("transformers",)

    def __init__(
        self,
        type: str = "base_coco",
        vocab_size: int = BERT,
        image_size: int = 384,
        batch: int = 1,
        method: Literal["beam", "greedy", "nucleus"] = "beam",
        num_beams: int = 3,
        num_captions: int = 1,
        num_tokens: int = 20,
        encode: bool = True,
        prepack: bool = True,
        compile: bool = False,
        *,
        device: torch.device,
        precision: str,
    ) -> None:
        self.amount = batch * num_captions
        self.precision, self.method, self.encode = precision, method, encode
        self.num_beams = num_beams if method == "beam" else 1
        self.num_captions = num_captions
        dtype = DTYPES[precision]
        self.model = build("blip_caption", type, vocab_size, image_size=image_size)
        self.model.eval().requires_grad_(False).to(device, dtype)
        self.pixels = images(batch, image_size, dtype, device)
        self.prompt = self.model.prompt_ids()
        self.length = len(self.prompt) + num_tokens
        with torch.no_grad():
            self.tokens: Tensor = self.model.encode_image(self.pixels)  # (B, N, D)
        if prepack and not compile:
            prepack_linears(self.model)
        if compile:
            compile_towers(self.model)
        self.theirs: Any = None

    def contender(self, name: str) -> Callable[[], Any]:
        """Ours gives texts, transformers' the ids of all images."""
        if name == "ours":
            return self._ours
        self.theirs = as_transformers(self.model).to(self.tokens.device, self.tokens.dtype)
        return self._transformers

    def _ours(self) -> list[str]:
        given = {"image": self.pixels} if self.encode else {"image_tokens": self.tokens}
        return self.model.generate(
            given,
            method=self.method,
            num_beams=self.num_beams,
            num_captions=self.num_captions,
            max_length=self.length,
            min_length=self.length,
        )

    @torch.no_grad()
    def _transformers(self) -> Tensor:
        words, ids = self.model.tokenizer, self._prompts([self.model.tokenizer.sep_id])
        options: dict[str, Any] = {
            "max_length": self.length,
            "min_length": self.length,
            "num_beams": self.num_beams,
            "num_return_sequences": self.num_captions,
            "do_sample": self.method == "nucleus",
        }
        if self.method == "nucleus":
            options |= {"top_p": 0.9, "top_k": 0}
        if self.encode:
            return self.theirs.generate(pixel_values=self.pixels, input_ids=ids, **options)
        mask = torch.ones(self.tokens.shape[:2], dtype=torch.long, device=ids.device)
        return self.theirs.text_decoder.generate(
            input_ids=ids[:, :-1],
            encoder_hidden_states=self.tokens,
            encoder_attention_mask=mask,
            eos_token_id=words.sep_id,
            pad_token_id=words.pad_id,
            **options,
        )

    def _prompts(self, rest: list[int]) -> Tensor:
        """(B, P + R) the prompt and more for every image."""
        row = [*self.prompt, *rest]
        return torch.tensor([row] * len(self.pixels), device=self.pixels.device)

    @torch.no_grad()
    def differences(self, baseline: str, ours: list[str], theirs: Tensor) -> list[Difference]:
        """Compare the logits of one text, and the texts of a beam search."""
        logits = self._logits(range(1000, 1020))
        compared = [of_tensors("logits", *logits, tolerance=CLOSE[self.precision])]
        if self.method != "nucleus":
            decode = self.model.tokenizer.decode
            written = [decode(row[len(self.prompt) :]) for row in theirs]
            rounded = 0.0 if self.precision == "fp32" else 1.0
            compared.append(of_lists("captions", ours, written, tolerance=rounded))
        longest = Difference("tokens", abs(theirs.shape[1] - self.length), 0)
        return [*compared, longest]

    def _logits(self, text: range) -> tuple[Tensor, Tensor]:
        """(B, L, V) of a text that goes on from the prompt, from pixels on: ours and theirs."""
        ids = self._prompts([number % len(self.model.tokenizer) for number in text])
        decoder = self.model.text_decoder
        tokens = self.model.encode_image(self.pixels)
        num_queries = max(self.num_beams, self.num_captions) * self.length  # those of writing
        ours = decoder(ids, image_kv=decoder.bert.image_context(tokens, num_queries, self.length))
        seen = self.theirs.vision_model(pixel_values=self.pixels).last_hidden_state
        mask = torch.ones(seen.shape[:2], dtype=torch.long, device=ids.device)
        theirs = self.theirs.text_decoder(
            input_ids=ids, encoder_hidden_states=seen, encoder_attention_mask=mask
        ).logits
        return ours, theirs
