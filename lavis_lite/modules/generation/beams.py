"""Beam search as transformers 4.15 did it, on which BLIP's published captions rest."""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_lite.errors import ConfigError
from lavis_lite.modules.generation.decoder import Decoder, leaves
from lavis_lite.modules.generation.rules import Rules
from lavis_lite.modules.generation.sampling import refuse_nan


class Hypotheses:
    """The best finished texts of one image, as many as there are beams."""

    def __init__(self, rules: Rules) -> None:
        self.size = rules.num_beams
        self.length_penalty = rules.length_penalty
        self.texts: list[tuple[float, list[int]]] = []

    def add(self, text: list[int], log_probability: float) -> None:
        """Takes a text when it is among the best; its score is per length, prompt included."""
        score = log_probability / len(text) ** self.length_penalty
        if len(self.texts) < self.size or score > self.worst:
            self.texts.append((score, text))
        if len(self.texts) > self.size:
            self.texts.remove(min(self.texts, key=lambda entry: entry[0]))

    @property
    def worst(self) -> float:
        """The lowest score among them."""
        return min(score for score, _ in self.texts)

    def closed(self, log_probability: float, length: int) -> bool:
        """Whether a running text of that probability and length could not enter any more."""
        if len(self.texts) < self.size:
            return False
        return self.worst >= log_probability / length**self.length_penalty

    def best(self, count: int) -> list[list[int]]:
        """The texts of the highest scores, best first.

        Raises:
            ConfigError: there are fewer, as a tiny vocabulary or one new token allow no more.
        """
        if len(self.texts) < count:
            raise ConfigError(
                f"texts per image: {count}; only {len(self.texts)} different ones of this length "
                "exist"
            )
        ranked = sorted(self.texts, key=lambda entry: entry[0])
        return [text for _, text in ranked[::-1][:count]]


def beam_search(decoder: Decoder, prompt: Tensor, rules: Rules) -> list[list[int]]:
    """The ``num_return`` best hypotheses per image.

    A running text that is merely continued keeps its place among the K beams; of the 2 K best
    continuations those that end a text and are among the first K become hypotheses. An image is
    finished when it has K hypotheses and its best continuation, scored at its present length,
    would not enter them.
    """
    num_images, prompt_length = prompt.shape
    num_beams = rules.num_beams
    found = [Hypotheses(rules) for _ in range(num_images)]
    images = list(range(num_images))  # image number of each row
    open_rows = set(images)
    tokens = prompt[:, None].expand(-1, num_beams, -1)  # (B, K, L)
    totals = torch.full((num_images, num_beams), -torch.inf, device=prompt.device)
    totals[:, 0] = 0.0  # all beams are the prompt: one is enough to begin with
    logits = decoder.start(prompt, num_beams, rules.max_length)[:, None].expand(-1, num_beams, -1)
    for length in range(prompt_length, rules.max_length):
        log_probability = logits.float().log_softmax(-1)
        refuse_nan(log_probability, torch.tensor(images, device=tokens.device))
        scores = rules.apply(log_probability, tokens) + totals[..., None]
        # Each beam can end in one way, so at least K of 2 K continuations go on.
        best, flat = scores.flatten(1).topk(2 * num_beams)  # (B, 2 K)
        parents, new = flat // scores.shape[-1], flat % scores.shape[-1]
        is_end = new == rules.eos_id
        collect(found, images, open_rows, tokens, parents, best, is_end, length)
        if not open_rows:
            break
        chosen = is_end.byte().argsort(dim=-1, stable=True)[:, :num_beams]  # the best that go on
        totals, parents, new = (x.gather(1, chosen) for x in (best, parents, new))
        tokens = torch.cat([take(tokens, parents), new[..., None]], dim=-1)
        if length + 1 == rules.max_length:
            break
        if leaves(len(open_rows), len(images)):
            going = torch.tensor(sorted(open_rows), device=prompt.device)
            tokens, totals, parents, new = (x[going] for x in (tokens, totals, parents, new))
            images = [images[row] for row in sorted(open_rows)]
            open_rows = set(range(len(images)))
            decoder.keep(going)
        logits = decoder.step(new, parents)
    for row in open_rows:  # stopped by max_length: what is running counts as it stands
        for text, total in zip(tokens[row].tolist(), totals[row].tolist(), strict=True):
            if total > -torch.inf:
                found[images[row]].add(text, total)
    return [text for hypotheses in found for text in hypotheses.best(rules.num_return)]


def take(tokens: Tensor, parents: Tensor) -> Tensor:
    """(B, K, L) texts, of each image those numbered ``parents`` (B, K)."""
    return tokens.gather(1, parents[..., None].expand(-1, -1, tokens.shape[-1]))


def collect(
    found: list[Hypotheses],
    images: list[int],
    open_rows: set[int],
    tokens: Tensor,
    parents: Tensor,
    best: Tensor,
    is_end: Tensor,
    length: int,
) -> None:
    """Turns ended continuations into hypotheses; takes the finished images out of ``open_rows``."""
    num_beams = tokens.shape[1]
    ended = (is_end & (best > -torch.inf))[:, :num_beams].tolist()
    highest = best[:, 0].tolist()
    for row in sorted(open_rows):
        hypotheses = found[images[row]]
        for rank in (rank for rank, end in enumerate(ended[row]) if end):
            text = tokens[row, parents[row, rank]].tolist()
            hypotheses.add(text, best[row, rank].item())
        if hypotheses.closed(highest[row], length):
            open_rows.discard(row)
