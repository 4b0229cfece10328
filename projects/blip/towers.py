"""What BLIP's models start from, and captioning, which BLIP alone can."""

from __future__ import annotations

from typing import Any

import torch

from lavis_lite.errors import ConfigError
from lavis_lite.models.encoders import GroundedModel
from lavis_lite.modules.generation import generate
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.med.decoder import GroundedDecoder
from lavis_lite.modules.med.model import MedDecoder
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.wordpiece import WordPiece
from lavis_lite.projects.blip.formats import Formats


class Blip(Formats, GroundedModel):
    """An image tower and a tokenizer with ``[DEC]`` and ``[ENC]``, and BLIP's formats."""


class Captioning:
    """Texts about images: the image-grounded text decoder.

    Needs ``text_decoder``, ``encode_image``, ``tokenizer``, ``prompt``.
    """

    text_decoder: MedDecoder
    tokenizer: WordPiece
    encode_image: Any
    prompt: str
    device: torch.device

    def prompt_ids(self) -> list[int]:
        """[DEC] and the prompt's tokens."""
        ids = self.tokenizer.encode([self.prompt], 512).ids[0].tolist()
        return [self.tokenizer.bos_id, *ids[1:-1]]

    @torch.no_grad()
    def generate(
        self,
        samples: Samples,
        use_nucleus_sampling: bool = False,
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 10,
        top_p: float = 0.9,
        repetition_penalty: float = 1.0,
        num_captions: int = 1,
        *,
        method: str | None = None,
        temperature: float = 1.0,
        length_penalty: float = 1.0,
        seeds: list[int] | None = None,
    ) -> list[str]:
        """Captions, the prompt removed; without dropout, whatever mode the model is in.

        Args:
            samples: ``image`` (B, 3, H, W); or ``image_tokens`` (B, N, D) where they are known.
            use_nucleus_sampling: sample instead of searching beams (LAVIS's switch).
            num_beams: beams per image; 1 is greedy.
            max_length: most tokens of a text, the prompt's included.
            min_length: fewest tokens of a text, the prompt's included.
            top_p: smallest probability mass that sampling draws from, in (0, 1].
            repetition_penalty: divides the scores of tokens that were there before; 1 is none.
            num_captions: texts per image; those of beam search differ from each other.
            method: ``beam``, ``greedy`` or ``nucleus``; wins over ``use_nucleus_sampling``.
            temperature: of sampling.
            length_penalty: exponent of the length that beam scores are divided by.
            seeds: one per image; sampled texts depend on it and not on the batch.

        Returns:
            B * num_captions texts, image-major.

        Raises:
            ConfigError: options that contradict each other, or more tokens than the tower holds.
        """
        positions = self.text_decoder.bert.max_length
        if max_length > positions:
            raise ConfigError(
                f"generate.max_length: {max_length}; the text tower has {positions} positions "
                f"(model.text.max_length)"
            )
        prompt = self.prompt_ids()
        with eval_mode(self):
            tokens = samples.get("image_tokens")
            if tokens is None:
                tokens = self.encode_image(samples["image"].to(self.device))
            method = method or ("nucleus" if use_nucleus_sampling else "beam")
            texts = num_beams if method == "beam" else num_captions
            seen = self.text_decoder.bert.image_context(tokens, texts * max_length, max_length)
            ids = generate(
                GroundedDecoder(self.text_decoder, seen),
                torch.tensor([prompt] * len(tokens), device=tokens.device),
                method=method,
                num_beams=num_beams,
                num_return=num_captions,
                max_length=max_length,
                min_length=min_length,
                top_p=top_p,
                temperature=temperature,
                repetition_penalty=repetition_penalty,
                length_penalty=length_penalty,
                eos_id=self.tokenizer.sep_id,
                pad_id=self.tokenizer.pad_id,
                seeds=seeds,
            )
        return [self.tokenizer.decode(row[len(prompt) :]) for row in ids]
