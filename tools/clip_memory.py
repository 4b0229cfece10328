"""How much memory gradient caching saves: one training step of each chunk size, measured.

python -m tools.clip_memory benchmarks/clip_gradient_cache.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lavis_lite import create_model
from lavis_lite.data.scenes.captions import Scenes
from lavis_lite.models.zoo import load_preprocess
from lavis_lite.report.environment import environment

MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each chunk size in a process of its own and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="the JSON file to write")
    parser.add_argument("--type", default="scenes", help="of the model clip")
    parser.add_argument("--batch", type=int, default=512, help="pairs in the batch")
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 128, 32], help="0: no cache")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    given = parser.parse_args(arguments)
    command = (
        "python -m tools.clip_memory "
        f"FILE --type {given.type} --batch {given.batch} --device {given.device}"
    )
    record = {}
    # A process's peak never falls: each measurement needs its own.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for chunk in given.chunks:
            settings = (given.type, given.batch, chunk, given.device)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            found = pool.apply(measure, settings)
            record[f"chunks of {chunk}" if chunk else "whole batch"] = {
                "command": command,
                "started": started,
                "environment": environment(),
                "step": 1,
                **found,
            }
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(type: str, batch: int, chunk: int, device: str) -> dict[str, Any]:
    """One forward and backward pass; peak memory above what stood before it.

    Returns:
        ``seconds``, and as ``metrics`` the ``peak_mib``, the loss and the norm of the gradient.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = create_model("clip", type, gradient_cache=chunk).to(device).train()
    samples = pairs(batch, model.image_size, device)
    small = {key: value[:2] for key, value in samples.items()}
    model(small).loss.backward()  # what the first step loads is none of the batch's
    model.zero_grad()
    before = peak(device)
    begin = time.perf_counter()
    loss = model(samples).loss
    loss.backward()
    after = peak(device)
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    figures = {
        "peak_mib": (after - before) / MIB,
        "loss": loss.item(),
        "grad_norm": torch.stack(norms).norm().item(),
    }
    return {"seconds": time.perf_counter() - begin, "metrics": figures}


def pairs(count: int, image_size: int, device: str) -> dict[str, Any]:
    """Scenes with their captions."""
    rows = Scenes("human", size=count, image_size=image_size)
    processors, _ = load_preprocess(
        {"vis_processor": {"eval": {"name": "clip_image_eval", "image_size": image_size}}}
    )
    shown = [rows[index] for index in range(count)]
    images = torch.stack([processors["eval"](row["image"]) for row in shown])
    return {"image": images.to(device), "text_input": [row["text_input"] for row in shown]}


def peak(device: str) -> int:
    """Bytes: the most that this process has held so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


if __name__ == "__main__":
    sys.exit(main())
