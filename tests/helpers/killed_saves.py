"""Kill a saving process again and again: python killed_saves.py DIRECTORY NUMBER.

Forks from one process, so that torch is imported once. Kills that miss a save do not count.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.checkpoint.directory import step_of, verify


def save_forever(directory: Path, step: int) -> None:
    """Save steps one after the other, each filled with its own number; the first one anew."""
    model = nn.Linear(400, 400)
    while True:
        with torch.no_grad():
            model.weight.fill_(step)
        state = {"step": step, "moments": torch.full((400, 400), float(step))}
        Checkpointer(directory, keep_last=1).save(step, model, state, {"step": step})
        step += 1


def check(directory: Path) -> int:
    """The newest step, after loading it: weights and state must be of one and the same save."""
    checkpointer = Checkpointer(directory)
    path = checkpointer.newest()
    assert path is not None, "there was one before the kill, and now there is none"
    model = nn.Linear(400, 400)
    step = checkpointer.load(path, model)["step"]
    assert step_of(path) == step
    assert torch.equal(model.weight, torch.full((400, 400), float(step)))
    for visible in directory.glob("step-*"):
        verify(visible)
    return step


def main(directory: Path, kills: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(0)
    model = nn.Linear(400, 400)
    nn.init.zeros_(model.weight)
    start = time.monotonic()
    Checkpointer(directory).save(0, model, {"step": 0}, {})
    took = time.monotonic() - start
    step = hits = misses = 0
    while hits < kills:
        child = os.fork()
        if child == 0:
            save_forever(directory, step)
        time.sleep(rng.uniform(0.5, 4.5) * took)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hit = any(path.name.startswith(".") for path in directory.iterdir())
        hits, misses = hits + hit, misses + (not hit)
        step = check(directory)
        assert misses < 10 * kills, f"the kills miss the saves: {hits} of {hits + misses} hit one"
    Checkpointer(directory).save(step + 1, model, {"step": step + 1}, {})
    left = [path.name for path in directory.iterdir() if path.name.startswith(".")]
    assert not left, f"not cleaned: {left}"
    print(f"{hits} kills within a save, last step {step}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
