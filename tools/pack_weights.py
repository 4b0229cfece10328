"""Turns finished runs into the small weights that a package ships.

python -m tools.pack_weights output/zoo_scenes/pretrain output/zoo_scenes/captioner

The run's model and type say which file they are: what the card of the type names as its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from lavis_lite import create_model
from lavis_lite.checkpoint.weights import load_state, read_weights, save_weights
from lavis_lite.models.published_weights import QUEUE
from lavis_lite.registry.cards import released_weights
from tools.record import record


def main(arguments: Sequence[str] | None = None) -> int:
    """Write weight files, and the records of their runs into TYPE.json beside them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of finished runs")
    for run in parser.parse_args(arguments).runs:
        pack(run)
    return 0


def pack(run: Path) -> Path:
    """Save the model of a finished run in half precision, and the run's record; the file.

    The momentum copy and the queue serve training alone: they are left out, and start anew where
    the weights are trained further.

    Raises:
        DataError: the folder holds no finished run.
        CheckpointError: no file is named for the weights of this type.
    """
    found = record(run)
    name, type = (found["settings"][f"model.{key}"] for key in ("name", "type"))
    file = Path(released_weights(name, type))
    model = create_model(name, type)
    load_state(model, read_weights(run))
    state = {
        key: tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
        if not key.partition(".")[0].endswith("_m") and key.rpartition(".")[2] not in QUEUE
    }
    file.parent.mkdir(exist_ok=True)
    save_weights(state, file)
    note = file.with_name(f"{type}.json")
    packed = json.loads(note.read_text("utf-8")) if note.exists() else {}
    packed[run.name] = {"file": file.name, **found}
    note.write_text(json.dumps(packed, indent=1) + "\n", "utf-8")
    return file


if __name__ == "__main__":
    sys.exit(main())
