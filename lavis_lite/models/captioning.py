"""Texts about images: methods of the models that write, whatever their decoder is.

A model with these parts says so in its class: ``generate = captioning.generate``.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lavis_lite.config.calls import checked_options
from lavis_lite.errors import ConfigError
from lavis_lite.models.images import EncodesImages, tokens_of
from lavis_lite.modules.generation import Decoder
from lavis_lite.modules.generation import generate as generate_ids
from lavis_lite.modules.layers.modes import eval_mode
from lavis_lite.modules.output import Samples
from lavis_lite.modules.text.wordpiece import WordPiece


class Writer(EncodesImages, Protocol):
    """The parts that the functions below read.

    ``prompt`` is what every text starts with, ``max_positions`` the most tokens that a text can
    have.
    """

    tokenizer: WordPiece
    prompt: str

    @property
    def max_positions(self) -> int:
        """The number of positions of the tower that writes."""
        ...

    def decoder_of(self, image_tokens: Tensor, num_texts: int, max_length: int) -> Decoder:
        """Bind the decoder to images (B, N, D), for so many texts and tokens of each."""
        ...


def prompt_ids(model: Writer) -> list[int]:
    """[DEC] and the prompt's tokens."""
    ids = model.tokenizer.encode([model.prompt], 512).ids[0].tolist()
    return [model.tokenizer.bos_id, *ids[1:-1]]


@checked_options
@torch.no_grad()
def generate(
    model: Writer,
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
    if max_length > model.max_positions:
        raise ConfigError(
            f"generate.max_length: {max_length}; the text tower has {model.max_positions} "
            "positions (model.text.max_length)"
        )
    prompt = prompt_ids(model)
    with eval_mode(model):
        tokens = tokens_of(samples, model)
        method = method or ("nucleus" if use_nucleus_sampling else "beam")
        texts = num_beams if method == "beam" else num_captions
        ids = generate_ids(
            model.decoder_of(tokens, texts, max_length),
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
            eos_id=model.tokenizer.sep_id,
            pad_id=model.tokenizer.pad_id,
            seeds=seeds,
        )
    return [model.tokenizer.decode(row[len(prompt) :]) for row in ids]
