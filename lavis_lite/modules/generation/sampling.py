"""One token after the other: the likeliest, or one drawn from the nucleus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lavis_lite.errors import NotFinite
from lavis_lite.modules.generation.decoder import Decoder, leaves
from lavis_lite.modules.generation.rules import Rules

# Sorting a vocabulary of 30,000 costs more than a decoding step of a small model; a nucleus that
# lies within the first few hundred tokens needs no more than those.
HEAD = 256

Choose = Callable[[Tensor, Tensor, int], Tensor]


def draw_texts(decoder: Decoder, prompt: Tensor, rules: Rules, choose: Choose) -> list[list[int]]:
    """``num_return`` texts per image, each token by ``choose(scores, rows, step)``.

    ``choose`` takes scores (B', K, V), the numbers of the images still there (B',) and how many
    tokens were chosen before, and returns ids (B', K).
    """
    num_images, prompt_length = prompt.shape
    num_texts = rules.num_return
    done: dict[int, list[list[int]]] = {}
    rows = torch.arange(num_images, device=prompt.device)
    tokens = prompt[:, None].expand(-1, num_texts, -1)  # (B, K, L)
    ended = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=prompt.device)
    logits = decoder.start(prompt, num_texts, rules.max_length)[:, None].expand(-1, num_texts, -1)
    for step in range(rules.max_length - prompt_length):
        refuse_nan(logits, rows)
        new = choose(rules.apply(logits.float(), tokens), rows, step)
        new = new.masked_fill(ended, rules.pad_id)
        tokens = torch.cat([tokens, new[..., None]], dim=-1)
        ended = ended | (new == rules.eos_id)
        going = (~ended).any(-1).nonzero()[:, 0]
        if len(going) == 0 or tokens.shape[-1] == rules.max_length:
            break
        if leaves(len(going), len(rows)):
            done |= dict(zip(rows.tolist(), tokens.tolist(), strict=True))
            rows, tokens, ended, new = (x[going] for x in (rows, tokens, ended, new))
            decoder.keep(going)
        logits = decoder.step(new)
    done |= dict(zip(rows.tolist(), tokens.tolist(), strict=True))
    return [cut(text, rules, prompt_length) for row in range(num_images) for text in done[row]]


def refuse_nan(logits: Tensor, rows: Tensor) -> None:
    """Raise NotFinite where a text has no token to choose.

    Args:
        logits: (B', K, V).
        rows: (B',) the images that they are of, for the error.
    """
    bad = ~logits.logsumexp(-1).isfinite().all(-1)  # -inf rules a token out, all of them none
    if bool(bad.any()):
        raise NotFinite("the logits of a text", rows[bad].tolist())


def cut(text: list[int], rules: Rules, prompt_length: int) -> list[int]:
    """The text up to its end token."""
    if rules.eos_id in text[prompt_length:]:
        return text[: text.index(rules.eos_id, prompt_length)]
    return text


def nucleus(rules: Rules, prompt: Tensor, seeds: list[int] | None) -> Choose:
    """A choice by inverse transform: number (seed, text, step) alone decides each draw."""
    num_images, prompt_length = prompt.shape
    seeds = seeds or torch.randint(2**62, (num_images,)).tolist()
    num_steps = rules.max_length - prompt_length
    numbers = [
        [np.random.default_rng([seed % 2**64, text]).random(num_steps, dtype=np.float32)
         for text in range(rules.num_return)]
        for seed in seeds
    ]  # fmt: skip
    uniform = torch.from_numpy(np.array(numbers)).to(prompt.device)  # (B, K, steps)

    def choose(scores: Tensor, rows: Tensor, step: int) -> Tensor:
        probabilities = (scores / rules.temperature).softmax(-1)
        numbers = uniform[rows, :, step]
        chosen = sample(probabilities.flatten(0, 1), numbers.flatten(), rules.top_p, rules.top_k)
        return chosen.view(numbers.shape)

    return choose


def sample(probabilities: Tensor, uniform: Tensor, top_p: float, top_k: int = 0) -> Tensor:
    """Draws from the nucleus of each row.

    Args:
        probabilities: (R, V).
        uniform: (R,) numbers in [0, 1) that decide the draws.
        top_p: a token stays while those before it, likelier ones, have less than this together.
        top_k: at most so many tokens stay, their probabilities made to add up to 1; 0 is off.

    Returns:
        (R,) token ids.
    """
    size = probabilities.shape[-1]
    likeliest, ids = probabilities.topk(min(top_k or HEAD, size))
    if top_k:
        likeliest = likeliest / likeliest.sum(-1, keepdim=True)
    chosen = invert(likeliest, ids, uniform, top_p)
    wide = likeliest.sum(-1) < top_p  # the nucleus goes on beyond the head
    if not top_k and size > HEAD and bool(wide.any()):
        likeliest, ids = probabilities[wide].sort(descending=True)
        chosen[wide] = invert(likeliest, ids, uniform[wide], top_p)
    return chosen


def invert(likeliest: Tensor, ids: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """The token where the nucleus' cumulative probability passes the uniform number; (R,)."""
    mass = likeliest.cumsum(-1)
    size = (mass - likeliest < top_p).sum(-1, keepdim=True)  # at least 1
    target = uniform[:, None] * mass.gather(-1, size - 1)
    place = torch.minimum((mass <= target).sum(-1, keepdim=True), size - 1)
    return ids.gather(-1, place)[:, 0]
