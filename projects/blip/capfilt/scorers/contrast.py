"""negCLIPLoss: the cosine of a pair, less what its text and image have with those of other pairs.

Reference: Wang et al., https://arxiv.org/abs/2405.19547, equation 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
from torch import Tensor

from lavis_lite import registry
from lavis_lite.data.seeding import generator
from lavis_lite.errors import ConfigError
from lavis_lite.modules.interfaces import Embeds
from lavis_lite.projects.blip.capfilt.scoring import ScoreBatch

_ROWS_AT_A_TIME = 1024  # of a batch's matrix of cosines


class Features(NamedTuple):
    """The unit vectors (E,) of a pair's image and text."""

    image: numpy.ndarray
    text: numpy.ndarray


@registry.register("scorer", "neg_clip_loss")
class NegClipLoss:
    """The cosine of a pair less the soft maximum of its cosines with others: at most about 0.

    A text that fits every image, or an image that fits every text, loses what it has in common
    with all of them. Others are drawn from the shard: its pairs are shuffled, cut into batches of
    about equal size, and the score is the mean over several such draws. The draws are by seed and
    shard, so that they are the same whoever computes them. Further texts of an image are no others.

    Args:
        model: any model that embeds images and texts.
        seed: of the run.
        batch_size: texts that the model reads at a time.
        contrast: most pairs of a batch that are compared with each other.
        draws: how often batches are drawn; one that holds the whole shard is drawn once.
        temperature: divides cosines; the model's own unless given.

    Raises:
        ConfigError: no temperature is given and the model has none.
    """

    of = "text"
    requires = (Embeds,)
    span = (-1.0, 0.0)

    def __init__(
        self,
        *,
        model: Embeds,
        seed: int,
        batch_size: int,
        contrast: int = 4096,
        draws: int = 5,
        temperature: float | None = None,
    ) -> None:
        own = getattr(model, "temperature", None)
        if temperature is None and own is None:
            raise ConfigError(
                f"scorer neg_clip_loss: {type(model).__name__} has no temperature; give "
                "`temperature`, such as 0.01"
            )
        if contrast < 2 or draws < 1 or (temperature is not None and temperature <= 0):
            raise ConfigError(
                "scorer neg_clip_loss: `contrast` is at least 2, `draws` at least 1 and "
                "`temperature` above 0"
            )
        self.model, self.seed, self.batch_size = model, seed, batch_size
        self.contrast, self.draws = contrast, draws
        self.temperature = temperature or float(model.temperature)  # type: ignore[attr-defined]

    def score(self, batch: ScoreBatch) -> list[Features]:
        """Return the features of each pair of a batch, from which `settle` computes."""
        if not batch.pairs:
            return []
        images = _numbers(self.model.image_features(batch.tokens(self.model)))
        found: list[Features] = []
        for start in range(0, len(batch.pairs), self.batch_size):
            pairs = batch.pairs[start : start + self.batch_size]
            states = self.model.encode_text([pair.text for pair in pairs])
            texts = _numbers(self.model.text_features(states))
            found += [
                Features(images[pair.row], text) for pair, text in zip(pairs, texts, strict=True)
            ]
        return found

    def settle(self, values: list[Features], rows: list[int], shard: int) -> list[float]:
        """Return the score of each pair of a shard.

        Args:
            values: of all its pairs.
            rows: of each, which image it has.
            shard: its number.
        """
        if not values:
            return []
        images = numpy.stack([one.image for one in values])
        texts = numpy.stack([one.text for one in values])
        own = numpy.asarray(rows)
        num_batches = -(-len(values) // self.contrast)
        draws = 1 if num_batches == 1 else self.draws
        total = numpy.zeros(len(values))
        for draw in range(draws):
            order = generator("contrast", self.seed, shard, draw).permutation(len(values))
            for chosen in numpy.array_split(order, num_batches):
                total[chosen] += contrasted(
                    images[chosen], texts[chosen], own[chosen], self.temperature
                )
        return (total / draws).tolist()


def contrasted(
    images: numpy.ndarray, texts: numpy.ndarray, rows: numpy.ndarray, temperature: float
) -> numpy.ndarray:
    """negCLIPLoss of the pairs of a batch, times the temperature: (P,).

    Args:
        images: (P, E) unit vectors.
        texts: (P, E) unit vectors.
        rows: (P,) which image each pair has; pairs of one image are not contrasted.
        temperature: divides cosines.
    """
    directions = (
        _soft_maximum(images, texts, rows, temperature),
        _soft_maximum(texts, images, rows, temperature),
    )
    cosines = (images * texts).sum(1)
    return cosines - sum(directions) / 2


def _soft_maximum(
    left: numpy.ndarray, right: numpy.ndarray, rows: numpy.ndarray, temperature: float
) -> numpy.ndarray:
    """``temperature`` times the log-sum-exp of each left's cosines with all right: (P,)."""
    found = numpy.empty(len(left))
    for start in range(0, len(left), _ROWS_AT_A_TIME):
        here = slice(start, start + _ROWS_AT_A_TIME)
        logits = (left[here] @ right.T).astype(numpy.float64) / temperature
        siblings = rows[here, None] == rows[None]
        siblings[numpy.arange(len(logits)), start + numpy.arange(len(logits))] = False
        logits[siblings] = -numpy.inf
        top = logits.max(1)
        found[here] = temperature * (top + numpy.log(numpy.exp(logits - top[:, None]).sum(1)))
    return found


def _numbers(features: Tensor) -> numpy.ndarray:
    return features.float().cpu().numpy()
