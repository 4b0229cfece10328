"""Randomness and identity as pure functions of what they belong to.

Python's own `hash` of a string changes from process to process; these do not, on any machine.
"""

from __future__ import annotations

import hashlib

import numpy


def stable_hash(*parts: int | str) -> int:
    """An integer in [0, 2^63) that depends on the parts alone, in every process."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> numpy.random.Generator:
    """A random generator seeded by the parts: the same parts give the same draws."""
    return numpy.random.Generator(numpy.random.PCG64(stable_hash(*parts)))
