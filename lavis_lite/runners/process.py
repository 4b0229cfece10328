"""Getting a process ready for a run: process group, device, threads, randomness."""

from __future__ import annotations

import logging
import os
import random

import numpy
import torch

from lavis_lite import distributed
from lavis_lite.config.schema import RunConfig
from lavis_lite.data.seeding import stable_hash
from lavis_lite.distributed import choose
from lavis_lite.runners.heap import keep_freed_memory


def join(run: RunConfig) -> torch.device:
    """Join the processes that torchrun started, set the threads; returns this process's device.

    Raises:
        ConfigError: no such device here.
    """
    keep_freed_memory(run.keep_memory)
    if run.num_threads:
        torch.set_num_threads(run.num_threads)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return choose(run.device)
    device = distributed.init(run.device)
    if not distributed.is_main():  # what goes well is told once, by the main process
        logging.getLogger("lavis_lite").setLevel(logging.WARNING)
    return device


def seed_everything(*parts: int | str) -> None:
    """Seed torch, numpy and random by ``parts`` alone, so that no generator state needs saving."""
    seed = stable_hash(*parts)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
