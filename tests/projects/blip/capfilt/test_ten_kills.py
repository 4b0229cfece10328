"""Ten runs of the shipped config, killed at random moments, leave what an undisturbed one does."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from two_processes import PRELOADED

from lavis_lite import config as configs
from lavis_lite import runners

CONTEXT = multiprocessing.get_context("forkserver")
TICKS = os.sysconf("SC_CLK_TCK")
WATCHDOG = 600
KILLS = 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]


def start(folder):
    CONTEXT.set_forkserver_preload([*PRELOADED, "lavis_lite.projects.blip.capfilt.runner"])
    process = CONTEXT.Process(target=run, args=(str(folder),))
    process.start()
    return process


def run(folder):
    overrides = [
        f"run.output_dir={folder}",
        "data.source.limit=320",
        "runner.shard_size=40",
        "output.images=true",
        "run.report=null",
    ]
    runners.run(configs.load_and_bind("blip/capfilt_scenes", overrides))


def seconds_computed(process):
    """CPU time so far: a moment of the run, whatever else the machine does."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def watch(process, until=float("inf")):
    """Wait for the end, or kill at a moment; returns the moment that was seen last."""
    begin, seen = time.monotonic(), 0.0
    while process.is_alive():
        assert time.monotonic() - begin < WATCHDOG
        seen = seconds_computed(process) or seen
        if seen >= until:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join(WATCHDOG)
    return seen


def test_killed_at_ten_random_moments_the_scenes_run_leaves_the_same_bytes(tmp_path, digests):
    whole = watch(first := start(tmp_path / "undisturbed"))
    assert first.exitcode == 0
    expected = digests(tmp_path / "undisturbed")
    assert len(expected) == 8 * 5
    rng = random.Random(0)
    hits = []
    for number in range(KILLS):
        folder = tmp_path / f"killed{number}"
        moment = whole * rng.uniform(0.05, 0.95)
        watch(victim := start(folder), until=moment)
        finished = {path: path.stat().st_mtime_ns for path in folder.glob("shards/*.done")}
        hits.append(victim.exitcode == -signal.SIGKILL)
        watch(again := start(folder))
        assert again.exitcode == 0
        assert digests(folder) == expected
        assert finished == {path: path.stat().st_mtime_ns for path in finished}
        print(f"killed after {moment:.1f} of {whole:.1f} s: {len(finished)} of 8 shards were done")
    assert sum(hits) >= KILLS // 2, "most runs were over before they were killed"
