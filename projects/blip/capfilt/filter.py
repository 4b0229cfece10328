"""How well texts fit their images, by a model that can `match` or embed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite.projects.blip.capfilt.config import Filter
from lavis_lite.text.attention import select

DIGITS = 6  # that scores are rounded to before anything is decided by them


class Pair(NamedTuple):
    """A text and the row of its image in a batch."""

    row: int
    text: str


class TextJudge:
    """Scores of texts: probability of a match in [0, 1], or cosine similarity in [-1, 1].

    Each image is encoded once, and once projected for cross-attention, for all of its texts.

    Args:
        model: the filter.
        settings: its part of the config.
        batch_size: texts at a time.
    """

    def __init__(self, model: Any, settings: Filter, batch_size: int) -> None:
        self.model = model
        self.settings = settings
        self.batch_size = batch_size

    def score(self, images: Tensor, pairs: list[Pair]) -> list[float]:
        """A score for each pair.

        Args:
            images: (B, 3, H, W).
            pairs: texts as the model reads them.
        """
        if not pairs:
            return []
        tokens = self.model.encode_image(images)  # (B, N, D)
        measure = self._matching(tokens) if self.settings.score == "itm" else self._cosine(tokens)
        # Texts of about one length share a batch, so that little is computed on padding.
        order = sorted(range(len(pairs)), key=lambda place: (len(pairs[place].text), place))
        scores = [0.0] * len(pairs)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            rows = torch.tensor([pairs[place].row for place in places], device=tokens.device)
            found = measure(rows, [pairs[place].text for place in places])
            for place, value in zip(places, found.float().cpu().tolist(), strict=True):
                scores[place] = round(value, DIGITS)
        return scores

    def _matching(self, tokens: Tensor) -> Any:
        model = self.model
        if hasattr(model, "match_pairs") and hasattr(model, "match_tower"):
            kv = model.match_tower.project(tokens)

            def logits(rows: Tensor, texts: list[str]) -> Tensor:
                return model.match_pairs(select(kv, rows), model.tokenize(texts))
        else:

            def logits(rows: Tensor, texts: list[str]) -> Tensor:
                return model.match(tokens[rows], texts)

        return lambda rows, texts: logits(rows, texts).float().softmax(-1)[:, 1]

    def _cosine(self, tokens: Tensor) -> Any:
        images = self.model.image_embeds(tokens)  # (B, E)

        def cosine(rows: Tensor, texts: list[str]) -> Tensor:
            return (images[rows] * self.model.text_embeds(self.model.encode_text(texts))).sum(-1)

        return cosine
