"""A disk that is full, that does not let go, or that forgets what was not synced."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from permissions import permissions_count
from torch import nn
from toy_runs import records, run, run_in_process, toy_config, weights

from lavis_lite.checkpoint.checkpointer import Checkpointer
from lavis_lite.data.quarantine import Quarantine
from lavis_lite.errors import CheckpointError
from lavis_lite.runners.loggers import JsonlLog, read_records


def save(directory, step, config=None, moments=1, width=3, **options):
    model = nn.Linear(width, width)
    nn.init.constant_(model.weight, step)
    state = {"step": step, "moments": torch.ones(moments)}
    return Checkpointer(directory, **options).save(step, model, state, config or {})


def names(directory):
    return sorted(path.name for path in Path(directory).iterdir())


# ---- full


@contextlib.contextmanager
def largest_file(size):
    """No file may grow beyond ``size`` bytes: what is written beyond it fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("large", "file"),
    [
        ({"width": 300}, "model.safetensors"),
        ({"moments": 90_000}, "state.pt"),
        ({"config": {"text": "x" * 300_000}}, "manifest.json"),
    ],
)
def test_a_save_without_room_leaves_the_old_checkpoint_and_no_rubbish(
    tmp_path, large, file, caplog
):
    old = save(tmp_path, 1)
    with largest_file(200_000):
        with pytest.raises(CheckpointError, match=r"step-00000002: .*File too large"):
            save(tmp_path, 2, **large, on_error="stop")
        assert save(tmp_path, 2, **large, on_error="continue") is None
        assert names(tmp_path) == [old.name]
        assert Checkpointer(tmp_path).newest() == old
    assert "could not save" in caplog.text
    path = save(tmp_path, 2, **large)
    assert (path / file).stat().st_size > 200_000


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.fault(7)
def test_a_disk_of_a_megabyte_that_fills_up_is_named_and_keeps_the_old_one(small_disk):
    old = save(small_disk / "checkpoints", 1)
    for large in ({"width": 600}, {"moments": 400_000}):
        with pytest.raises(CheckpointError, match=r"step-00000002: .*No space left on device"):
            save(small_disk / "checkpoints", 2, **large)
        assert Checkpointer(small_disk / "checkpoints").newest() == old
    assert names(small_disk / "checkpoints") == [old.name]
    assert save(small_disk / "checkpoints", 2) is not None


@pytest.mark.fault(7)
def test_a_disk_that_says_so_only_when_it_is_synced_leaves_the_old_one(tmp_path, monkeypatch):
    old = save(tmp_path, 1)

    def refuse(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(CheckpointError, match="No space left"):
            save(tmp_path, 2)
    assert names(tmp_path) == [old.name]
    assert save(tmp_path, 2) is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(toy_config(folder))
    return folder


def assert_same(folder, expected):
    assert records(folder) == records(expected)
    ours, theirs = weights(folder), weights(expected)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.fault(7)
def test_a_run_stops_when_a_checkpoint_has_no_room_and_continues_when_there_is(
    tmp_path, undisturbed
):
    assert run_in_process(toy_config(tmp_path), "full:6-9") == 1
    assert names(tmp_path / "checkpoints") == ["step-00000004"]
    run(toy_config(tmp_path))
    assert_same(tmp_path, undisturbed)


@pytest.mark.fault(7)
def test_a_run_may_go_on_without_room_and_then_loses_no_record(tmp_path, undisturbed):
    config = toy_config(tmp_path, run__on_disk_full="continue")
    assert run_in_process(config, "full:5-9") == 0
    assert names(tmp_path / "checkpoints") == ["step-00000004", "step-00000012"]
    assert_same(tmp_path, undisturbed)


@pytest.mark.fault(7)
def test_a_run_whose_result_has_no_room_is_not_complete(tmp_path, undisturbed):
    config = toy_config(tmp_path, run__on_disk_full="continue")
    assert run_in_process(config, "tight:9-99") == 1
    assert not (tmp_path / "complete.json").exists()
    assert names(tmp_path / "checkpoints") == ["step-00000004", "step-00000008"]
    run(config)
    assert_same(tmp_path, undisturbed)


@pytest.mark.fault(7)
def test_records_that_had_no_room_are_written_at_the_latest_when_the_log_is_closed(tmp_path):
    log = JsonlLog(tmp_path / "metrics.jsonl", keep=lambda record: True)
    log.write({"step": 1})
    with largest_file(log.path.stat().st_size + 5):
        log.write({"step": 2})
    assert [record["step"] for record in read_records(log.path)] == [1]
    log.close()
    assert [record["step"] for record in read_records(log.path)] == [1, 2]


@pytest.mark.fault(7)
@pytest.mark.parametrize("room", [0, 30])
def test_a_quarantine_without_room_holds_its_records_back(tmp_path, caplog, room):
    path = tmp_path / "quarantine.jsonl"
    quarantine = Quarantine(str(path))
    quarantine.add(bad_row(0))
    with largest_file(path.stat().st_size + room):
        for index in (1, 2):
            quarantine.add(bad_row(index))
    assert caplog.text.count("held back until there is room") == 1
    quarantine.add(bad_row(3))
    again = Quarantine(str(path))
    assert again.total == quarantine.total == 4
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["index"] for line in whole] == [0, 1, 2, 3]


def bad_row(index):
    return {"dataset": "photos", "index": index, "key": f"k{index}", "reason": "truncated image"}


# ---- read-only


@pytest.mark.fault(6)
@pytest.mark.skipif(sys.platform != "linux", reason="takes root's rights away as Linux does")
def test_training_goes_on_when_an_old_checkpoint_cannot_be_deleted(tmp_path, undisturbed, caplog):
    config = toy_config(tmp_path, run__keep_last=1)
    assert run_in_process(config, "kill:6") == -signal.SIGKILL
    old = tmp_path / "checkpoints" / "step-00000004"
    old.chmod(0o555)
    with permissions_count():
        with pytest.raises(PermissionError):
            (old / "state.pt").unlink()
        run(config)
    assert "could not delete" in caplog.text
    assert "training goes on: [Errno 13] Permission denied" in caplog.text
    assert_same(tmp_path, undisturbed)
    assert names(tmp_path / "checkpoints") == [".trash-step-00000004", "step-00000012"]
    (tmp_path / "checkpoints" / ".trash-step-00000004").chmod(0o755)
    save(tmp_path / "checkpoints", 13, keep_last=1)
    assert names(tmp_path / "checkpoints") == ["step-00000013"]


# ---- forgetful


@pytest.mark.fault(1)
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """What was not synced before the rename is lost when the power fails."""
    events = []
    fsync, rename = os.fsync, os.rename

    def note_sync(handle):
        fsync(handle)
        about = os.fstat(handle)
        events.append(("sync", about.st_ino, about.st_mtime_ns))

    def note_rename(source, target):
        events.append(("rename", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    path = save(tmp_path, 1)
    named = events.index(("rename", str(path)))
    for entry in [path, *path.iterdir()]:
        about = entry.stat()
        assert ("sync", about.st_ino, about.st_mtime_ns) in events[:named], entry.name
    assert [event[1] for event in events[named + 1 :]] == [tmp_path.stat().st_ino]
    synced = [event[1] for event in events[:named]]
    assert synced[-2:] == [(path / "manifest.json").stat().st_ino, path.stat().st_ino]
