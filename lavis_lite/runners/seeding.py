"""Randomness of a step as a function of the step, so that no generator state needs saving."""

from __future__ import annotations

import random

import numpy
import torch

from lavis_lite.data.seeding import stable_hash


def seed_everything(*parts: int | str) -> None:
    """Seed torch, numpy and random by ``parts`` alone."""
    seed = stable_hash(*parts)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
