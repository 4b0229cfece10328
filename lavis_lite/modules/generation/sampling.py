"""Greedy decoding and nucleus sampling, token by token.

Dim letters: B images (B' still running), K texts per image, L tokens so far, V vocabulary, R rows,
H likeliest tokens that are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lavis_lite.errors import NotFinite
from lavis_lite.modules.generation.decoder import Decoder, should_compact
from lavis_lite.modules.generation.rules import Rules

# Sorting a vocabulary of 30,000 costs more than a decoding step of a small model; most nuclei lie
# within the first few hundred tokens, and then only those are sorted.
HEAD = 256

Choose = Callable[[Tensor, Tensor, int], Tensor]


def draw_texts(decoder: Decoder, prompt: Tensor, rules: Rules, choose: Choose) -> list[list[int]]:
    """Return ``num_return`` texts per image, each token by ``choose(scores, rows, step)``.

    ``choose`` takes scores (B', K, V), the numbers of the running images (B',) and the number of
    tokens chosen before, and returns ids (B', K).
    """
    num_images, prompt_length = prompt.shape
    num_texts = rules.num_return
    done: dict[int, list[list[int]]] = {}
    rows = torch.arange(num_images, device=prompt.device)  # (B,)
    tokens = prompt[:, None].expand(-1, num_texts, -1)  # (B, K, L)
    ended = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=prompt.device)  # (B, K)
    logits = decoder.start(prompt, num_texts, rules.max_length)  # (B, V)
    logits = logits[:, None].expand(-1, num_texts, -1)  # (B, K, V)
    for step in range(rules.max_length - prompt_length):
        refuse_nan(logits, rows)
        new = choose(rules.apply(logits.float(), tokens), rows, step)
        new = new.masked_fill(ended, rules.pad_id)
        tokens = torch.cat([tokens, new[..., None]], dim=-1)  # (B', K, L + 1)
        ended = ended | (new == rules.eos_id)  # (B', K)
        going = (~ended).any(-1).nonzero()[:, 0]  # rows with a text to continue
        if len(going) == 0 or tokens.shape[-1] == rules.max_length:
            break
        if should_compact(len(going), len(rows)):
            done |= dict(zip(rows.tolist(), tokens.tolist(), strict=True))
            rows, tokens, ended, new = (x[going] for x in (rows, tokens, ended, new))
            decoder.keep(going)
        logits = decoder.step(new)  # (B', K, V)
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
    """Return the text up to its end token, without it."""
    if rules.eos_id in text[prompt_length:]:
        return text[: text.index(rules.eos_id, prompt_length)]
    return text


def nucleus(rules: Rules, prompt: Tensor, seeds: list[int] | None) -> Choose:
    """Return a choice by inverse transform sampling; (seed, text, step) alone decide each draw."""
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
        probabilities = (scores / rules.temperature).softmax(-1)  # (B', K, V)
        numbers = uniform[rows, :, step]  # (B', K)
        chosen = sample(probabilities.flatten(0, 1), numbers.flatten(), rules.top_p, rules.top_k)
        return chosen.view(numbers.shape)  # (B', K)

    return choose


def sample(probabilities: Tensor, uniform: Tensor, top_p: float, top_k: int = 0) -> Tensor:
    """Draw a token from the nucleus of each row.

    Args:
        probabilities: (R, V).
        uniform: (R,) numbers in [0, 1) that decide the draws.
        top_p: a token stays while the likelier tokens together have less probability than this.
        top_k: keep at most this many tokens, renormalised to sum to 1; 0 is off.

    Returns:
        (R,) token ids.
    """
    size = probabilities.shape[-1]
    likeliest, ids = probabilities.topk(min(top_k or HEAD, size))  # (R, H)
    if top_k:
        likeliest = likeliest / likeliest.sum(-1, keepdim=True)  # (R, H)
    chosen = invert(likeliest, ids, uniform, top_p)  # (R,)
    wide = likeliest.sum(-1) < top_p  # (R,) the nucleus goes on beyond the head
    if not top_k and size > HEAD and bool(wide.any()):
        likeliest, ids = probabilities[wide].sort(descending=True)  # (wide rows, V)
        chosen[wide] = invert(likeliest, ids, uniform[wide], top_p)
    return chosen


def invert(likeliest: Tensor, ids: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Return the token (R,) at which the nucleus' cumulative probability passes ``uniform`` (R,).

    Args:
        likeliest: (R, H) probabilities in descending order.
        ids: (R, H) their token ids.
        uniform: (R,) numbers in [0, 1).
        top_p: see ``sample``.
    """
    mass = likeliest.cumsum(-1)  # (R, H)
    size = (mass - likeliest < top_p).sum(-1, keepdim=True)  # (R, 1), at least 1
    target = uniform[:, None] * mass.gather(-1, size - 1)  # (R, 1)
    place = torch.minimum((mass <= target).sum(-1, keepdim=True), size - 1)  # (R, 1)
    return ids.gather(-1, place)[:, 0]  # (R,)
