"""Turns the recorded runs of configs/blip/zoo_*scenes.yaml into the weights that the package ships.

python -m lavis_lite.projects.blip.pack_weights output/zoo_scenes
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lavis_lite import create_model
from lavis_lite.projects.blip.convert import QUEUE
from lavis_lite.report.record import record
from lavis_lite.weights import load_state, read_weights, save_weights

FOLDER = Path(__file__).with_name("weights")
# Stage of the run -> the model whose weights it gives, and their file.
STAGES = {
    "pretrain": ("blip_pretrain", "pretrain_scenes.safetensors"),
    "captioner": ("blip_caption", "caption_scenes.safetensors"),
    "retrieval": ("blip_retrieval", "retrieval_scenes.safetensors"),
    "vqa": ("blip_vqa", "vqa_scenes.safetensors"),
    "nlvr": ("blip_nlvr", "nlvr_scenes.safetensors"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write weight files, and the record of the run they come from into ``scenes.json``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="output folder of one of these configs")
    run = parser.parse_args(arguments).run
    note = FOLDER / "scenes.json"
    packed = json.loads(note.read_text("utf-8")) if note.exists() else {}
    stages = [stage for stage in STAGES if (run / stage).is_dir()]
    if not stages:
        parser.error(f"{run} has no folder called {', '.join(STAGES)}")
    packed |= {stage: pack(run / stage, *STAGES[stage]) for stage in stages}
    note.write_text(json.dumps(packed, indent=1) + "\n", "utf-8")
    return 0


def pack(run: Path, name: str, file: str) -> dict[str, Any]:
    """Save one model's weights in half precision; returns where they come from.

    The momentum copy and the queue serve training alone: they are left out, and start anew where
    the weights are trained further.
    """
    model = create_model(name, "scenes")
    load_state(model, read_weights(run))
    state = {
        key: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
        if not key.partition(".")[0].endswith("_m") and key.rpartition(".")[2] not in QUEUE
    }
    FOLDER.mkdir(exist_ok=True)
    save_weights(state, FOLDER / file)
    return {"file": file, **record(run)}


if __name__ == "__main__":
    sys.exit(main())
