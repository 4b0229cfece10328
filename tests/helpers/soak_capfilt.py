"""Bootstrap, kill, go on: python tests/helpers/soak_capfilt.py benchmarks/soak_capfilt.json.

The shipped CapFilt config on scenes, its images travelling along in tar shards. It is run once in
peace, and once by two processes that share the folder, of which one is killed again and again, and
in the end the other too: each just before a file operation in the run's folder that was drawn by
lot, so that no machine is too fast or too slow for it. After each kill the shards that were done
must be as they were. In the end every file must have the bytes of the undisturbed run, and every
key stand in exactly one record.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from soak_record import record_soak

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["torch._dynamo", "timm", "lavis_lite.projects.blip.capfilt.runner"]
SHARD_SIZE = 40
OPERATIONS = {"open", "os.mkdir", "os.scandir", "os.rename", "os.remove"}
PER_SHARD = 29  # of these, roughly
WATCHDOG = 1800  # seconds


def settings(folder: Path, rows: int) -> list[str]:
    """What the run changes in the shipped config."""
    return [
        f"run.output_dir={folder}",
        f"data.source.limit={rows}",
        f"runner.shard_size={SHARD_SIZE}",
        "output.images=true",
        "run.report=null",
    ]


def bootstrap(folder: Path, rows: int, operations: int | None) -> None:
    """CapFilt, in a process of its own, that dies when it begins so many file operations."""
    from lavis_lite import config, runners

    if operations is not None:
        die_at(folder, operations)
    runners.run(config.load_and_bind("blip/capfilt_scenes", settings(folder, rows)))


def die_at(folder: Path, operations: int) -> None:
    """Be killed, as by ``kill -9``, before the n-th operation on a file of the shards."""
    count = itertools.count(1)
    shards = str(folder / "shards")

    def audit(event: str, details: tuple[Any, ...]) -> None:
        touched = event in OPERATIONS and str(details[0]).startswith(shards)
        if touched and next(count) >= operations:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


def start(folder: Path, rows: int, operations: int | None = None) -> BaseProcess:
    """Begin the run in ``folder``, continue it, or join the one that is under way."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    process = CONTEXT.Process(target=bootstrap, args=(folder, rows, operations))
    process.start()
    return process


def finish(process: BaseProcess) -> None:
    """Wait for the end of a process that lives on."""
    process.join(WATCHDOG)
    assert process.exitcode == 0, f"ended with code {process.exitcode}"


def see_killed(process: BaseProcess) -> None:
    """Wait for the end of one that does not."""
    process.join(WATCHDOG)
    assert process.exitcode == -signal.SIGKILL, f"ended with code {process.exitcode}"


def done(folder: Path) -> dict[str, int]:
    """The marks of finished shards, and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("shards/*.done")}


def soak(folder: Path, rows: int, kills: int, seed: int = 0) -> dict[str, Any]:
    """The calm run, the disturbed run, and the comparison.

    Returns:
        Figures for the record.
    """
    rng = random.Random(seed)
    calm, disturbed = folder / "calm", folder / "disturbed"
    finish(start(calm, rows))
    begin = time.monotonic()
    num_shards = len(done(calm))
    beside, finished = 0, {}
    helper = start(disturbed, rows, PER_SHARD + 1)
    for number in range(kills):
        # A quarter as they begin; none gets much further than through one shard.
        last = 2 if number % 4 == 3 else PER_SHARD + 6
        victim = start(disturbed, rows, rng.randint(1, last))
        beside += helper.is_alive()
        see_killed(victim)
        now = done(disturbed)
        assert finished.items() <= now.items(), "a finished shard was written again"
        finished = now
    see_killed(helper)
    left = num_shards - len(finished)
    finish(start(disturbed, rows))
    assert finished.items() <= done(disturbed).items(), "a finished shard was written again"
    seconds = time.monotonic() - begin
    differing = {n for n, _ in digests(calm).items() ^ digests(disturbed).items()}
    assert not differing, f"other bytes in {sorted(differing)}"
    counts = keys(disturbed)
    assert len(counts) == rows, f"{len(counts)} of {rows} keys"
    assert set(counts.values()) == {1}, "a key stands in several records"
    assert (disturbed / "complete.json").is_file()
    return {
        "step": num_shards,
        "seconds": round(seconds, 1),
        "metrics": {
            "kills": kills + 1,
            "kills_beside_another_process": beside,
            "shards": num_shards,
            "shards_left_after_the_last_kill": left,
            "files_with_the_same_bytes": len(digests(disturbed)),
            "samples_each_once": len(counts),
            "pairs_kept": kept(disturbed),
        },
    }


def digests(folder: Path) -> dict[str, str]:
    """File name -> hash of its bytes, of everything in the folder of the shards."""
    files = sorted((folder / "shards").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def records(folder: Path) -> list[dict[str, Any]]:
    """All records, in order."""
    files = sorted(folder.glob("shards/shard-??????.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def keys(folder: Path) -> Counter[str]:
    """How often each sample was written."""
    return Counter(record["key"] for record in records(folder))


def kept(folder: Path) -> int:
    """Pairs of image and text that the filter let through."""
    return sum(r["kept"]["web"] + sum(r["kept"]["synthetic"]) for r in records(folder))


def main() -> None:
    """Soak, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="the JSON file to write")
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    told = {"cfg": "blip/capfilt_scenes", "set": settings(Path("FOLDER"), given.rows)}
    record_soak(given.file, lambda f: soak(f, given.rows, given.kills), 2, told)


if __name__ == "__main__":
    main()
