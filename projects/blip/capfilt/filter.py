"""Scores of how well texts fit their images, by a model that can `match` or embed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_lite.modules.layers.similarity import paired_cosines
from lavis_lite.projects.blip.capfilt.config import Filter

Batches = Iterator[tuple[list[int], Tensor]]  # places of pairs, and their scores
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
        return self.score_tokens(self.model.encode_image(images), pairs) if pairs else []

    def score_tokens(self, tokens: Tensor, pairs: list[Pair]) -> list[float]:
        """A score for each pair of images that are encoded.

        Args:
            tokens: (B, N, D) of the model's image encoder.
            pairs: texts as the model reads them.
        """
        if self.settings.score == "itc":
            batches = self._cosines(tokens, pairs)
        elif hasattr(self.model, "match_pairs") and hasattr(self.model, "match_tower"):
            batches = self._matching(tokens, pairs)
        else:
            batches = self._matching_copies(tokens, pairs)
        scores = [0.0] * len(pairs)
        for places, found in batches:
            for place, value in zip(places, found.float().cpu().tolist(), strict=True):
                scores[place] = round(value, DIGITS)
        return scores

    def _matching(self, tokens: Tensor, pairs: list[Pair]) -> Batches:
        """Images that have as many texts go together, their texts folded onto their keys.

        No image's keys and values are copied for a text, and those of a few images exist at a time.
        """
        model = self.model
        for rows, places in folded(pairs, self.batch_size):
            image_tokens = tokens[torch.tensor(rows, device=tokens.device)]
            texts = model.tokenize([pairs[place].text for place in places])
            seen = model.match_tower.image_context(image_tokens, texts.ids.numel() // len(rows))
            logits = model.match_pairs(seen, texts)
            yield places, logits.float().softmax(-1)[:, 1]

    def _matching_copies(self, tokens: Tensor, pairs: list[Pair]) -> Batches:
        """Match texts with a model that takes one image for each text."""
        for rows, places in self._by_length(pairs):
            logits = self.model.match(tokens[rows], [pairs[place].text for place in places])
            yield places, logits.float().softmax(-1)[:, 1]

    def _cosines(self, tokens: Tensor, pairs: list[Pair]) -> Batches:
        images = self.model.image_features(tokens)  # (B, E), or (B, Q, E)
        for rows, places in self._by_length(pairs):
            states = self.model.encode_text([pairs[place].text for place in places])
            yield places, paired_cosines(images[rows], self.model.text_features(states))

    def _by_length(self, pairs: list[Pair]) -> Iterator[tuple[list[int], list[int]]]:
        """Rows of images and places of pairs, a batch at a time, texts of about one length."""
        order = sorted(range(len(pairs)), key=lambda place: (len(pairs[place].text), place))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            yield [pairs[place].row for place in places], places


def folded(pairs: list[Pair], most_texts: int) -> Iterator[tuple[list[int], list[int]]]:
    """Batches of images that have as many texts each, those with short texts first.

    Args:
        pairs: texts with the rows of their images.
        most_texts: of a batch; the texts of an image that has more go into several.

    Yields:
        The rows of B images, and the places of their K * B pairs, image-major.
    """
    of_row: dict[int, list[int]] = {}
    for place, pair in enumerate(pairs):
        of_row.setdefault(pair.row, []).append(place)
    pieces = [
        places[start : start + most_texts]
        for places in of_row.values()
        for start in range(0, len(places), most_texts)
    ]
    pieces.sort(key=lambda places: (max(len(pairs[p].text) for p in places), places[0]))
    alike: dict[int, list[list[int]]] = {}
    for places in pieces:
        alike.setdefault(len(places), []).append(places)
    for num_texts, same in sorted(alike.items()):
        most = most_texts // num_texts
        for start in range(0, len(same), most):
            batch = same[start : start + most]
            yield [pairs[places[0]].row for places in batch], [p for own in batch for p in own]
