"""The command line under torchrun: a lost process, an error in one process, Ctrl-C."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from toy_runs import records, run, toy_config
from two_processes import run_on_two_processes

from lavis_lite.config import to_dict

ROOT = Path(__file__).resolve().parents[3]


def torchrun(config, fault, restarts=0):
    """Run a config on two processes under torchrun, with a fault."""
    file = Path(config.run.output_dir).with_suffix(".yaml")
    file.write_text(OmegaConf.to_yaml(OmegaConf.create(to_dict(config))))
    env = os.environ | {
        "TOY_FAULT": fault,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", f"--max-restarts={restarts}", "--monitor-interval=0.1"]
    return subprocess.run(
        [*command, str(ROOT / "run.py"), "--cfg", str(file)],
        env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def processes_of(text):
    """Numbers of the processes with ``text`` in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.fault(12)
def test_a_killed_process_is_started_again_and_the_run_ends_as_if_nothing_had_been(tmp_path):
    config = toy_config(tmp_path / "run")
    done = torchrun(config, "kill:6@1", restarts=3)
    assert done.returncode == 0, done.stderr
    assert "continues after step 4 of 12" in done.stderr
    run_on_two_processes(run, toy_config(tmp_path / "straight"))
    mine, expected = records(tmp_path / "run"), records(tmp_path / "straight")
    assert [r["step"] for r in mine] == list(range(1, 13))
    for ours, theirs in zip(mine, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def wait_for_the_end_of(text, seconds=15):
    """The processes that are left when nothing changes any more."""
    end = time.monotonic() + seconds  # a loader process looks for its parent every five seconds
    while (left := processes_of(text)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


@pytest.mark.fault(13)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_killed_process_that_is_not_started_again_ends_all_and_leaves_no_orphan(tmp_path):
    done = torchrun(toy_config(tmp_path / "run", data__num_workers=1), "kill:6@1")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert "forcefully" not in done.stderr  # the other one left before torchrun lost its patience
    assert wait_for_the_end_of(str(tmp_path / "run.yaml")) == []
    assert [r["step"] for r in records(tmp_path / "run")][-1] == 6
    assert not (tmp_path / "run" / "complete.json").exists()


@pytest.mark.fault(16)
def test_an_error_of_one_process_ends_all_and_is_printed_once(tmp_path):
    done = torchrun(toy_config(tmp_path / "run"), "raise:6@1")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "ValueError: the toy breaks" in line]
    by_process = [line for line in lines if "traceback :" not in line]  # that is torchrun's report
    assert len(by_process) == 1
    assert len(lines) == 2
    assert done.stderr.count("Traceback (most recent call last)") <= 2  # the other is torchrun's
    if Path("/proc").is_dir():
        assert processes_of(str(tmp_path / "run.yaml")) == []
