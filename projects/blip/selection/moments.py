"""Statistics of scores over the pool, added up block by block, and the scores fused by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy

from lavis_lite.errors import DataError
from lavis_lite.projects.blip.selection.rules import Fusion

MOST_SAMPLED = 200_000  # images whose scores stand for all: exact below, 0.2 % off in rank above


@dataclass(frozen=True)
class Moments:
    """Statistics of one score over the texts that have it.

    Attributes:
        number: texts with the score.
        missing: texts without.
        mean, squares: their mean, and the sum of squared differences from it.
        low, high: the smallest and the largest value; infinite where there is none.
        sample: (S,) values of the images that stand for all, sorted.
    """

    number: int
    missing: int
    mean: float
    squares: float
    low: float
    high: float
    sample: numpy.ndarray

    @property
    def deviation(self) -> float:
        """Return the standard deviation."""
        return (self.squares / self.number) ** 0.5 if self.number else 0.0


def moments_of(values: numpy.ndarray, sampled: numpy.ndarray) -> Moments:
    """Return the statistics of a block.

    Args:
        values: (T,) scores, NaN where there is none.
        sampled: (T,) bool, the texts of images that stand for all.
    """
    known = ~numpy.isnan(values)
    own = values[known]
    mean = float(own.mean()) if len(own) else 0.0
    return Moments(
        len(own),
        len(values) - len(own),
        mean,
        float(((own - mean) ** 2).sum()),
        float(own.min(initial=numpy.inf)),
        float(own.max(initial=-numpy.inf)),
        numpy.sort(values[known & sampled]),
    )


def merged(parts: Iterable[Moments]) -> Moments:
    """Return the statistics of all blocks; their order decides the last bits of mean and squares.

    Chan, Golub and LeVeque, Updating formulae (1979), equations 2.1.
    """
    total = moments_of(numpy.empty(0), numpy.empty(0, bool))
    samples = []
    for part in parts:
        number = total.number + part.number
        gap = part.mean - total.mean
        share = part.number / number if number else 0.0
        squares = total.squares + part.squares + gap * gap * total.number * share
        total = Moments(
            number,
            total.missing + part.missing,
            total.mean + gap * share,
            squares,
            min(total.low, part.low),
            max(total.high, part.high),
            total.sample,
        )
        samples.append(part.sample)
    sample = numpy.sort(numpy.concatenate([numpy.empty(0), *samples]))
    return dataclasses.replace(total, sample=sample)


_NUMBERS = ("number", "missing", "mean", "squares", "low", "high")


def save(moments: Mapping[str, Moments], path: Path) -> None:
    """Write the statistics of all scores."""
    arrays = {}
    for place, (name, own) in enumerate(moments.items()):
        arrays[f"name{place}"] = numpy.array(name)
        arrays[f"numbers{place}"] = numpy.array([getattr(own, n) for n in _NUMBERS], float)
        arrays[f"sample{place}"] = own.sample
    with path.open("wb") as file:
        numpy.savez(file, **arrays)  # type: ignore[arg-type]  # its flag is no array


def load(path: Path) -> dict[str, Moments]:
    """Read what `save` wrote."""
    found = {}
    with numpy.load(path, allow_pickle=False) as arrays:
        for place in range(len(arrays.files) // 3):
            number, missing, mean, squares, low, high = arrays[f"numbers{place}"].tolist()
            sample = arrays[f"sample{place}"]
            own = Moments(int(number), int(missing), mean, squares, low, high, sample)
            found[str(arrays[f"name{place}"])] = own
    return found


def sampled_images(shard: numpy.ndarray, index: numpy.ndarray, num_images: int) -> numpy.ndarray:
    """Tell which images stand for all: a share of them, by a hash of their row of the source.

    Args:
        shard, index: (T,) of each text.
        num_images: of the pool.
    """
    if num_images <= MOST_SAMPLED:
        return numpy.ones(len(index), bool)
    with numpy.errstate(over="ignore"):  # splitmix64, of 64 bits that wrap around
        bits = (index.astype(numpy.uint64) << 20) ^ shard.astype(numpy.uint64)
        bits += numpy.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> 30)) * numpy.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> 27)) * numpy.uint64(0x94D049BB133111EB)
        bits ^= bits >> 31
    return bits < numpy.uint64(MOST_SAMPLED / num_images * 2**64)


def fused(
    fusion: Fusion, scores: Mapping[str, numpy.ndarray], moments: Mapping[str, Moments]
) -> numpy.ndarray:
    """Return a weighted sum of normalised scores, (T,); NaN where one of them is missing.

    ``z``: the score minus the pool's mean, over its standard deviation. ``rank``: the share of the
    pool that has a lower score, ties counting half.

    Raises:
        DataError: all texts have the same score, or none has it.
    """
    total = numpy.zeros(len(next(iter(scores.values()))))
    for name, weight in fusion.weights.items():
        own, values = moments[name], scores[name]
        if not own.deviation:
            raise DataError(
                f"scores: {name!r} cannot be normalised: {own.number:,} texts have it, all with "
                "the same value"
            )
        if fusion.how == "z":
            total += weight * (values - own.mean) / own.deviation
        else:
            below = numpy.searchsorted(own.sample, values, "left")
            up_to = numpy.searchsorted(own.sample, values, "right")
            rank = (below + up_to) / (2 * len(own.sample))
            total += weight * numpy.where(numpy.isnan(values), numpy.nan, rank)
    return total
