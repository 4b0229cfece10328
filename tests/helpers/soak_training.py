"""Train, kill, train on: python tests/helpers/soak_training.py benchmarks/soak_training.json.

A BLIP of a few thousand weights (its contrastive loss with queue and momentum copy, matching and
language modelling) is trained on pictures of which one in twenty is broken, by two loader
processes, with a checkpoint every few steps. It is trained once in peace, and once more while it is
killed again and again: some times as it starts, else after a random number of steps and at a random
moment within one. After each kill every checkpoint that can be seen must be whole. In the end
weights, optimizer, records and quarantine of the two runs must be equal, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw
from soak_record import record_soak

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    *("torch._dynamo", "timm"),
    *("lavis_lite.runners.train.runner", "lavis_lite.projects.blip.pretrain"),
]
PICTURES, BAD_EVERY, SIZE, BATCH, SAVE_EVERY = 400, 20, 32, 4, 5
WATCHDOG = 1800  # seconds for one life
MODEL = [
    "model.type=tiny",
    f"model.image_size={SIZE}",
    "model.embed_width=8",
    "model.vision={name: timm/vit_base_patch16_224, embed_dim: 16, depth: 1, num_heads: 2}",
    "model.text={name: med, width: 16, depth: 1, num_heads: 2, mlp_width: 32}",
    "model.losses.itc.queue_size=64",
]


class Life(NamedTuple):
    """One process of the disturbed run: how it ended, and what it left."""

    killed: bool
    step: int
    verified: int


def write_pictures(folder: Path, seed: int = 0) -> Path:
    """Squares and circles with their captions, every twentieth broken in one of four ways.

    Returns:
        The annotation file.
    """
    rng = random.Random(seed)
    (folder / "pictures").mkdir(parents=True)
    rows = []
    for number in range(PICTURES):
        color, shape = rng.choice(["red", "green", "blue"]), rng.choice(["square", "circle"])
        picture = Image.new("RGB", (SIZE, SIZE), "white")
        draw = ImageDraw.Draw(picture)
        (draw.rectangle if shape == "square" else draw.ellipse)((6, 6, 26, 26), fill=color)
        file = folder / "pictures" / f"{number}.jpg"
        picture.save(file)
        if number % BAD_EVERY == 7:
            break_file(file, number // BAD_EVERY % 4)
        rows.append({"image": f"pictures/{file.name}", "caption": f"a {color} {shape}"})
    annotations = folder / "captions.json"
    annotations.write_text(json.dumps(rows))
    return annotations


def break_file(file: Path, how: int) -> None:
    """Cut it to half, empty it, put a web page in its place, or remove it."""
    if how == 0:
        os.truncate(file, file.stat().st_size // 2)
    elif how == 1:
        os.truncate(file, 0)
    elif how == 2:
        file.write_text("<!DOCTYPE html><title>404</title>")
    else:
        file.unlink()


def train(annotations: str, folder: str, steps: int) -> None:
    """The training run, in a process of its own."""
    import torch

    from lavis_lite import config, runners

    torch.set_num_threads(1)
    data = f"{{name: json, path: {annotations}, images: {Path(annotations).parent}}}"
    overrides = [
        *MODEL,
        f"data.train=[{data}]",
        f"data.batch_size={BATCH}",
        "data.num_workers=2",
        "data.processors.image.train={name: blip_image_train}",
        "evaluate=[]",
        f"run.output_dir={folder}",
        f"run.max_steps={steps}",
        f"run.checkpoint_every={SAVE_EVERY}",
        "run.log_every=1",
        "run.loggers=[jsonl]",
    ]
    runners.run(config.load_and_bind("blip/pretrain_scenes", overrides))


def start(annotations: Path, folder: Path, steps: int) -> BaseProcess:
    """Begin or continue the run in ``folder``."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    process = CONTEXT.Process(target=train, args=(str(annotations), str(folder), steps))
    process.start()
    return process


def live(process: BaseProcess, folder: Path, rng: random.Random, new_steps: int | None) -> Life:
    """Kill a process after so many new steps, or as it starts (0); None lets it finish."""
    end = time.monotonic() + WATCHDOG
    done = last_record(folder)
    if new_steps == 0:
        process.join(rng.uniform(0.0, 1.0))
    else:
        while process.is_alive() and (new_steps is None or last_record(folder) < done + new_steps):
            assert time.monotonic() < end, "a life takes too long"
            process.join(0.02)
        process.join(0.0 if new_steps is None else rng.uniform(0.0, 0.1))
    if new_steps is not None and process.is_alive():
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join(WATCHDOG)
    killed = process.exitcode == -signal.SIGKILL
    assert killed or process.exitcode == 0, f"ended with code {process.exitcode}"
    step, verified = verify(folder)
    return Life(killed, step, verified)


def last_record(folder: Path) -> int:
    """The step of the last whole record; 0 without one."""
    file = folder / "metrics.jsonl"
    lines = file.read_bytes()[-4000:].split(b"\n")[:-1] if file.is_file() else []
    return json.loads(lines[-1])["step"] if len(lines) > 1 else 0


def verify(folder: Path) -> tuple[int, int]:
    """The step of the newest checkpoint, and how many there are; each must be whole."""
    from lavis_lite.checkpoint import directory

    found = sorted((folder / "checkpoints").glob("step-*"))
    for path in found:
        directory.verify(path)
    return (directory.step_of(found[-1]) or 0) if found else 0, len(found)


def soak(folder: Path, steps: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """The calm run, the disturbed run, and the comparison.

    Returns:
        ``step``, ``seconds`` of the disturbed run, and ``metrics``, for the record.
    """
    rng = random.Random(seed)
    annotations = write_pictures(folder / "data", seed)
    calm, disturbed = folder / "calm", folder / "disturbed"
    live(start(annotations, calm, steps), calm, rng, None)
    begin = time.monotonic()
    lives = []
    for number in range(kills):
        # On average half a share of the run each, so that it cannot end before the last kill.
        new_steps = 0 if number % 4 == 3 else rng.randint(1, max(1, steps // kills))
        lives.append(live(start(annotations, disturbed, steps), disturbed, rng, new_steps))
        assert len(lives) < 2 or lives[-1].step >= lives[-2].step, "a whole checkpoint was lost"
    lives.append(live(start(annotations, disturbed, steps), disturbed, rng, None))
    seconds = time.monotonic() - begin
    metrics = {
        "kills_survived": sum(life.killed for life in lives),
        "kills_while_starting": sum(n % 4 == 3 for n in range(kills)),
        "checkpoints_written": steps // SAVE_EVERY,
        "checkpoints_verified": sum(life.verified for life in lives),
        "samples": PICTURES,
        "samples_quarantined": compare(calm, disturbed),
    }
    return {"step": steps, "seconds": round(seconds, 1), "metrics": metrics}


def compare(calm: Path, disturbed: Path) -> int:
    """Hold one run to the other; returns how many samples are in quarantine.

    Raises:
        AssertionError: they differ.
    """
    import torch

    from lavis_lite.checkpoint.weights import read_weights

    ours, theirs = read_weights(str(disturbed)), read_weights(str(calm))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), f"{name} differs"
    states = [
        torch.load(max((f / "checkpoints").glob("step-*")) / "state.pt", weights_only=True)
        for f in (calm, disturbed)
    ]
    assert_equal(*states, "state")
    assert records(disturbed) == records(calm), "the records differ"
    bad = [quarantined(folder) for folder in (disturbed, calm)]
    assert bad[0] == bad[1], "the quarantines differ"
    assert len(bad[0]) == PICTURES // BAD_EVERY, f"{len(bad[0])} samples are in quarantine"
    return len(bad[0])


def assert_equal(one: Any, other: Any, where: str) -> None:
    """The same values at the same places, tensors bit for bit."""
    import torch

    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (mine, its) in enumerate(zip(one, other, strict=True)):
            assert_equal(mine, its, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the speed, and without what is known of bad samples at that time.

    A run that was killed knows them from the steps that it does again.
    """
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    left_out = ("samples_per_second", "quarantined")
    return [{k: v for k, v in json.loads(x).items() if k not in left_out} for x in lines]


def quarantined(folder: Path) -> list[tuple[int, str, str]]:
    """Row, file and reason of each sample in quarantine, in the order in which they were met."""
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [(r["index"], r["key"], r["reason"]) for r in map(json.loads, lines)]


def main() -> None:
    """Soak, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="the JSON file to write")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=60)
    given = parser.parse_args()
    settings = {
        "model": MODEL,
        "batch_size": BATCH,
        "num_workers": 2,
        "checkpoint_every": SAVE_EVERY,
        "bad_fraction": 1 / BAD_EVERY,
    }
    record_soak(given.file, lambda f: soak(f, given.steps, given.kills), 1, settings)


if __name__ == "__main__":
    main()
