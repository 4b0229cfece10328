"""Beam search as in transformers 4.15, which produced BLIP's published captions.

Dim letters: B images, K beams per image, L tokens so far, P prompt tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation.decoder import Decoder, should_compact
from lavis_lite.modules.generation.rules import Rules
from lavis_lite.modules.generation.sampling import refuse_nan


class Hypotheses:
    """The best finished texts of one image, as many as there are beams."""

    def __init__(self, rules: Rules) -> None:
        self.size = rules.num_beams
        self.length_penalty = rules.length_penalty
        self.texts: list[tuple[float, list[int]]] = []

    def add(self, text: list[int], log_probability: float) -> None:
        """Add a text if it is among the best; its score is per length, prompt included."""
        score = log_probability / len(text) ** self.length_penalty
        if len(self.texts) < self.size or score > self.worst:
            self.texts.append((score, text))
        if len(self.texts) > self.size:
            self.texts.remove(min(self.texts, key=lambda entry: entry[0]))

    @property
    def worst(self) -> float:
        """The lowest score among the texts."""
        return min(score for score, _ in self.texts)

    def is_closed(self, log_probability: float, length: int) -> bool:
        """Tell whether a running text of this log-probability and length can no longer enter."""
        if len(self.texts) < self.size:
            return False
        return self.worst >= log_probability / length**self.length_penalty

    def best(self, count: int) -> list[list[int]]:
        """Return the texts of the highest scores, best first.

        Raises:
            ConfigError: there are fewer, because a tiny vocabulary or one new token allows no more.
        """
        if len(self.texts) < count:
            raise ConfigError(
                f"texts per image: {count}; only {len(self.texts)} different ones of this length "
                "exist"
            )
        ranked = sorted(self.texts, key=lambda entry: entry[0])
        return [text for _, text in ranked[::-1][:count]]


def beam_search(decoder: Decoder, prompt: Tensor, rules: Rules) -> list[list[int]]:
    """Return the ``num_return`` best hypotheses per image.

    Each step takes the 2 K best continuations: those that end a text and are among the first K
    become hypotheses, and the K best that do not end a text are the next beams. An image is
    finished when it has K hypotheses and its best continuation, scored at its present length,
    would not enter them.
    """
    num_images, prompt_length = prompt.shape
    num_beams = rules.num_beams
    hypotheses = [Hypotheses(rules) for _ in range(num_images)]
    images = list(range(num_images))  # image number of each row
    open_rows = set(images)
    tokens = prompt[:, None].expand(-1, num_beams, -1)  # (B, K, L)
    totals = torch.full((num_images, num_beams), -torch.inf, device=prompt.device)  # (B, K)
    totals[:, 0] = 0.0  # all beams are the prompt: one is enough to begin with
    logits = decoder.start(prompt, num_beams, rules.max_length)  # (B, V)
    logits = logits[:, None].expand(-1, num_beams, -1)  # (B, K, V)
    for length in range(prompt_length, rules.max_length):
        log_probability = logits.float().log_softmax(-1)
        refuse_nan(log_probability, torch.tensor(images, device=tokens.device))
        scores = rules.apply(log_probability, tokens) + totals[..., None]
        # Each beam can end in one way, so at least K of 2 K continuations go on.
        best, flat = scores.flatten(1).topk(2 * num_beams)  # (B, 2 K)
        parents, new = flat // scores.shape[-1], flat % scores.shape[-1]  # (B, 2 K)
        is_end = new == rules.eos_id  # (B, 2 K)
        collect(hypotheses, images, open_rows, tokens, parents, best, is_end, length)
        if not open_rows:
            break
        # A stable sort puts the best continuations that do not end a text first.
        chosen = is_end.byte().argsort(dim=-1, stable=True)[:, :num_beams]  # (B, K)
        totals, parents, new = (x.gather(1, chosen) for x in (best, parents, new))  # (B, K)
        tokens = torch.cat([select_beams(tokens, parents), new[..., None]], dim=-1)  # (B, K, L + 1)
        if length + 1 == rules.max_length:
            break
        if should_compact(len(open_rows), len(images)):
            going = torch.tensor(sorted(open_rows), device=prompt.device)  # (B',)
            tokens, totals, parents, new = (x[going] for x in (tokens, totals, parents, new))  # B'
            images = [images[row] for row in sorted(open_rows)]
            open_rows = set(range(len(images)))
            decoder.keep(going)
        logits = decoder.step(new, parents)  # (B, K, V)
    for row in open_rows:  # stopped by max_length: running texts count as they stand
        for text, total in zip(tokens[row].tolist(), totals[row].tolist(), strict=True):
            if total > -torch.inf:
                hypotheses[images[row]].add(text, total)
    return [text for of_image in hypotheses for text in of_image.best(rules.num_return)]


def select_beams(tokens: Tensor, parents: Tensor) -> Tensor:
    """Return, per image, the texts numbered ``parents`` (B, K) of ``tokens`` (B, K, L)."""
    return tokens.gather(1, parents[..., None].expand(-1, -1, tokens.shape[-1]))  # (B, K, L)


def collect(
    hypotheses: list[Hypotheses],
    images: list[int],
    open_rows: set[int],
    tokens: Tensor,
    parents: Tensor,
    best: Tensor,
    is_end: Tensor,
    length: int,
) -> None:
    """Turn ended continuations into hypotheses; take finished images out of ``open_rows``.

    Args:
        hypotheses: the finished texts of each image.
        images: image number of each of the B rows.
        open_rows: rows whose image is not finished; changed in place.
        tokens: (B, K, L) texts before this step.
        parents: (B, 2 K) beam that each continuation extends.
        best: (B, 2 K) log-probability of each continuation, best first.
        is_end: (B, 2 K) True where the new token ends the text.
        length: L.
    """
    num_beams = tokens.shape[1]
    ended = (is_end & (best > -torch.inf))[:, :num_beams].tolist()  # (B, K)
    highest = best[:, 0].tolist()  # (B,)
    for row in sorted(open_rows):
        of_image = hypotheses[images[row]]
        for rank in (rank for rank, end in enumerate(ended[row]) if end):
            text = tokens[row, parents[row, rank]].tolist()
            of_image.add(text, best[row, rank].item())
        if of_image.is_closed(highest[row], length):
            open_rows.discard(row)
