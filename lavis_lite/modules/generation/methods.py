"""Text generation with a decoder: greedy, beam search, nucleus sampling.

The decoder keeps its own cache and never repeats an image: the K beams or samples of an image are
one row with K texts. Lengths count the prompt, as they do in transformers, and beam search gives
the same ids as the transformers release that BLIP was published with (4.15).

Dim letters: B images, K texts per image, P prompt tokens, L tokens so far, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation.beams import beam_search
from lavis_lite.modules.generation.decoder import Decoder
from lavis_lite.modules.generation.rules import Rules
from lavis_lite.modules.generation.sampling import draw_texts, nucleus

__all__ = ["Decoder", "generate"]


@torch.no_grad()
def generate(
    decoder: Decoder,
    prompt: Tensor,
    *,
    method: str = "beam",
    num_beams: int = 3,
    num_return: int = 1,
    max_length: int = 30,
    min_length: int = 0,
    top_p: float = 0.9,
    top_k: int = 0,
    temperature: float = 1.0,
    repetition_penalty: float = 1.0,
    length_penalty: float = 1.0,
    eos_id: int,
    pad_id: int,
    seeds: list[int] | None = None,
) -> list[list[int]]:
    """Generate the token ids of ``num_return`` texts per image.

    Args:
        decoder: a session bound to B images, such as ``GroundedDecoder``.
        prompt: (B, P) ids to continue, P at least 1, without padding.
        method: ``beam``, ``greedy`` or ``nucleus``; one beam is greedy.
        num_beams: beams per image, for ``beam``.
        num_return: texts per image: the best, different hypotheses of a beam search, or as many
            samples.
        max_length: most tokens, the prompt's included.
        min_length: fewest tokens before the end token, the prompt's included.
        top_p: nucleus: the smallest set of tokens with this much probability, in (0, 1].
        top_k: nucleus: the most tokens in the set; 0 for no limit.
        temperature: nucleus: divides the logits.
        repetition_penalty: multiplies negative scores of tokens that occurred before, and divides
            positive ones; 1 is none.
        length_penalty: beam: a hypothesis' score is divided by its length to this power.
        eos_id: the token that ends a text.
        pad_id: the token that is fed to texts that have ended.
        seeds: nucleus: a seed per image; its draws depend on nothing else in the batch.
            None takes seeds from torch's global generator.

    Returns:
        B * num_return lists, image-major, with the prompt, without the end token.

    Raises:
        ConfigError: settings that contradict each other, or a wrong number of seeds.
    """
    num_images, prompt_length = prompt.shape
    rules = Rules(
        method, num_beams, num_return, max_length, min_length, top_p, top_k, temperature,
        repetition_penalty, length_penalty, eos_id, pad_id,
    )  # fmt: skip
    rules.check(prompt_length)
    if seeds is not None and len(seeds) != num_images:
        raise ConfigError(f"seeds: {len(seeds)} of them for {num_images} images")
    if num_images == 0:
        return []
    if method == "beam" and num_beams > 1:
        return beam_search(decoder, prompt, rules)
    if method == "nucleus":
        return draw_texts(decoder, prompt, rules, nucleus(rules, prompt, seeds))
    return draw_texts(decoder, prompt, rules, lambda scores, rows, step: scores.argmax(-1))
