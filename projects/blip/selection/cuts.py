"""The best share of a pool that fits into no memory, exactly: two passes over counts that add up.

A score, rounded to float32, is 32 bits whose order is that of the numbers. The first pass counts
the upper 16 bits over the pool, which tells the bin that the cut falls into; the second counts the
lower 16 bits inside that bin, which tells the cut itself and how many of the texts that lie right
on it stay. Of those the first of the pool are taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy

from lavis_lite.errors import DataError

MOST_STRATA = 1_000
WHOLE = ""  # the name of the one stratum where there are no others
_HALF = 16


class Counts(NamedTuple):
    """Numbers of texts of each stratum and of each 16 bits; what is zero is left out.

    Attributes:
        strata: names.
        stratum, bits, number: (C,) place in ``strata``, the bits, and how many texts.
    """

    strata: list[str]
    stratum: numpy.ndarray
    bits: numpy.ndarray
    number: numpy.ndarray


class Cut(NamedTuple):
    """The place where a stratum is cut.

    Attributes:
        code: ordered bits of the cut; texts above it stay.
        score: the same as a number.
        ties: how many of the texts right on it stay, of each block.
        of, kept: texts of the stratum, and how many of them stay.
    """

    code: int
    score: float
    ties: list[int]
    of: int
    kept: int


def codes_of(scores: numpy.ndarray) -> numpy.ndarray:
    """(T,) numbers -> (T,) uint32 in the same order, of the numbers as float32."""
    bits = (scores.astype(numpy.float32) + numpy.float32(0)).view(numpy.uint32)  # -0 is 0
    return numpy.where(bits >> 31, ~bits, bits | numpy.uint32(1 << 31))


def score_of(code: int) -> float:
    """Return the number that a code stands for."""
    bits = code & 0x7FFFFFFF if code >> 31 else ~code & 0xFFFFFFFF
    return float(numpy.array(bits, numpy.uint32).view(numpy.float32))


def upper(codes: numpy.ndarray, strata: numpy.ndarray) -> Counts:
    """Count the upper bits of a block.

    Args:
        codes: (T,) of the texts that the rule meets.
        strata: (T,) their strata's names.
    """
    return _counted(codes >> _HALF, strata)


def lower(codes: numpy.ndarray, strata: numpy.ndarray, bins: dict[str, int]) -> Counts:
    """Count the lower bits of the texts of a block in the bin where their stratum is cut."""
    inside = numpy.zeros(len(codes), bool)
    for name, own in bins.items():
        inside |= (strata == name) & (codes >> _HALF == own)
    return _counted(codes[inside] & 0xFFFF, strata[inside])


def _counted(bits: numpy.ndarray, strata: numpy.ndarray) -> Counts:
    names, places = numpy.unique(strata, return_inverse=True)
    both, number = numpy.unique(places.astype(numpy.int64) << _HALF | bits, return_counts=True)
    return Counts(names.tolist(), both >> _HALF, both & 0xFFFF, number)


def save(counts: Counts, path: Path) -> None:
    """Write the counts of a block."""
    with path.open("wb") as file:
        numpy.savez(
            file,
            strata=numpy.array(counts.strata, dtype=str),
            stratum=counts.stratum,
            bits=counts.bits,
            number=counts.number,
        )


def load(path: Path) -> Counts:
    """Read what `save` wrote."""
    with numpy.load(path, allow_pickle=False) as found:
        return Counts(found["strata"].tolist(), found["stratum"], found["bits"], found["number"])


def total(parts: Iterable[Counts], where: str) -> dict[str, numpy.ndarray]:
    """Add up the counts of all blocks: stratum -> (65536,) numbers.

    Raises:
        DataError: there are more strata than can be held.
    """
    sums: dict[str, numpy.ndarray] = {}
    for part in parts:
        for place, name in enumerate(part.strata):
            own = sums.setdefault(name, numpy.zeros(1 << _HALF, numpy.int64))
            if len(sums) > MOST_STRATA:
                raise DataError(
                    f"{where}: more than {MOST_STRATA:,} strata ({name!r} ...): take a field with "
                    "few values"
                )
            mine = part.stratum == place
            own[part.bits[mine]] += part.number[mine]
    return sums


def bins(sums: dict[str, numpy.ndarray], fraction: float) -> dict[str, tuple[int, int, int]]:
    """Return where each stratum is cut: the bin, how many of it stay, and of how many texts all.

    Args:
        sums: of the upper bits.
        fraction: of the texts of each stratum, above 0.
    """
    return {
        name: (*_from_above(own, _wanted(fraction, int(own.sum()))), int(own.sum()))
        for name, own in sums.items()
    }


def _wanted(fraction: float, number: int) -> int:
    return int(fraction * number + 0.5)


def _from_above(numbers: numpy.ndarray, wanted: int) -> tuple[int, int]:
    """Return the place where the count from the top reaches a number, and what is left there."""
    above = numpy.cumsum(numbers[::-1])[::-1]  # at this place or above
    if wanted <= 0:
        return len(numbers) - 1, 0
    place = int(numpy.flatnonzero(above >= wanted)[-1])
    return place, wanted - int(above[place] - numbers[place])


def cuts(
    found: dict[str, tuple[int, int, int]],
    sums: dict[str, numpy.ndarray],
    parts: Iterable[Counts],
    fraction: float,
) -> dict[str, Cut]:
    """Return the cut of each stratum.

    Args:
        found: see `bins`.
        sums: of the lower bits.
        parts: the same by block, in order: who is first stays, of those right on the cut.
        fraction: of the texts of each stratum.
    """
    places, left = {}, {}
    for name, (_, rest, _) in found.items():
        none = numpy.zeros(1 << _HALF, numpy.int64)
        places[name], left[name] = _from_above(sums.get(name, none), rest)
    ties: dict[str, list[int]] = {name: [] for name in found}
    for part in parts:
        here = {name: place for place, name in enumerate(part.strata)}
        for name in found:
            mine = (part.stratum == here.get(name, -1)) & (part.bits == places[name])
            taken = min(left[name], int(part.number[mine].sum()))
            ties[name].append(taken)
            left[name] -= taken
    return {
        name: Cut(
            code := upper_bits << _HALF | places[name],
            score_of(code),
            ties[name],
            number,
            _wanted(fraction, number),
        )
        for name, (upper_bits, _, number) in found.items()
    }


def stays(
    codes: numpy.ndarray, strata: numpy.ndarray, found: dict[str, Cut], block: int
) -> numpy.ndarray:
    """Tell which texts of a block are in the best share: (T,) bool."""
    chosen = numpy.zeros(len(codes), bool)
    for name, cut in found.items():
        mine = strata == name
        chosen |= mine & (codes > cut.code)
        tied = numpy.flatnonzero(mine & (codes == cut.code))
        chosen[tied[: cut.ties[block]]] = True
    return chosen
