"""Killed, repeated, shared between workers: the same bytes, and nothing computed twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from two_processes import PRELOADED

from lavis_lite import runners
from lavis_lite.config import to_yaml
from lavis_lite.errors import ConfigError
from lavis_lite.projects.blip.capfilt import runner
from lavis_lite.projects.blip.capfilt.claims import locked

CONTEXT = multiprocessing.get_context("forkserver")
ROOT = Path(__file__).parents[4]
WATCHDOG = 60


def run_apart(config, environment=None, step=None):
    """A process that runs the config; ``step``: the published file after which it kills itself."""
    CONTEXT.set_forkserver_preload([*PRELOADED, "lavis_lite.projects.blip.capfilt.runner"])
    process = CONTEXT.Process(target=_run, args=(config, environment or {}, step))
    process.start()
    return process


def _run(config, environment, step):
    import torch

    from lavis_lite.projects.blip.capfilt import shard
    from lavis_lite.registry.plugins import load_plugin

    torch.set_num_threads(1)
    os.environ.update(environment)
    if step is not None:
        publish, published = shard.publish, []

        def publish_and_die(temporary, path):
            if len(published) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            published.append(path)
            publish(temporary, path)

        shard.publish = publish_and_die
    for plugin in config.plugins:
        load_plugin(plugin)
    runners.run(config)


def finished(*processes):
    for process in processes:
        process.join(WATCHDOG)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"still running after {WATCHDOG} s")
    return [process.exitcode for process in processes]


def computed(watched):
    """Images that were captioned, by all processes."""
    file = watched / "computed"
    return sum(map(int, file.read_text().split())) if file.exists() else 0


IMAGES = "output.images=true"


@pytest.fixture
def expected(capfilt, digests):
    """The bytes of a run that nothing disturbed."""
    found = digests(capfilt("undisturbed", IMAGES))
    assert len(found) == 3 * 5
    return found


@pytest.mark.fault(48, 49)
def test_killed_at_any_point_of_writing_and_started_again_it_writes_the_same_bytes(
    load, digests, expected, tmp_path
):
    # Three shards of five files: before each file's name appears, the mark's among them.
    for step in range(15):
        name = f"step{step}"
        assert finished(run_apart(load(name, IMAGES), step=step)) == [-signal.SIGKILL]
        done = sorted((tmp_path / name / "shards").glob("*.done"))
        assert len(done) == step // 5
        before = {path: path.stat().st_mtime_ns for path in done}
        runners.run(load(name, IMAGES))
        assert digests(tmp_path / name) == expected  # leftovers and locks are gone, too
        assert before == {path: path.stat().st_mtime_ns for path in before}
        assert (tmp_path / name / "complete.json").exists()


@pytest.mark.fault(48)
def test_killed_while_it_computes_it_repeats_the_shard_at_hand_and_no_other(
    load, digests, expected, tmp_path, watched
):
    environment = {"TOY_CAPFILT": str(watched)}
    for batch in (0, 2, 3, 4, 8):  # three batches a shard
        name = f"batch{batch}"
        (watched / "computed").unlink(missing_ok=True)
        (watched / "kill_at").write_text(str(batch))
        assert finished(run_apart(load(name, IMAGES), environment)) == [-signal.SIGKILL]
        (watched / "kill_at").unlink()
        (watched / "computed").unlink()
        runners.run(load(name, IMAGES))
        assert computed(watched) == 24 - 8 * (batch // 3)
        assert digests(tmp_path / name) == expected


def test_a_finished_run_started_again_computes_nothing_and_changes_no_shard(
    capfilt, digests, watched
):
    folder = capfilt()
    assert computed(watched) == 24
    times = {p: p.stat().st_mtime_ns for p in (folder / "shards").iterdir()}
    stats = (folder / "stats.json").read_text()
    capfilt("out", "data.num_workers=1", "run.max_bad_fraction=0.2")
    assert computed(watched) == 24
    assert times == {p: p.stat().st_mtime_ns for p in (folder / "shards").iterdir()}
    assert (folder / "stats.json").read_text() == stats


def test_a_shard_that_is_not_whole_is_computed_again(capfilt, digests, watched):
    folder = capfilt()
    expected = digests(folder)
    cut = folder / "shards" / "shard-000001.jsonl"
    cut.write_bytes(cut.read_bytes()[:100])
    capfilt()
    assert computed(watched) == 24 + 8
    assert digests(folder) == expected


@pytest.mark.fault(48)
def test_two_runs_in_one_folder_share_the_shards(load, digests, expected, tmp_path, watched):
    environment = {"TOY_CAPFILT": str(watched)}
    pair = [run_apart(load("shared", IMAGES), environment) for _ in range(2)]
    assert finished(*pair) == [0, 0]
    assert computed(watched) == 24
    assert digests(tmp_path / "shared") == expected


def test_runs_that_end_at_the_same_moment_sum_up_one_after_the_other(capfilt, monkeypatch):
    collect = runner.collect

    def look_while_collecting(folder, data):
        other = CONTEXT.Process(target=_exit_with_whether_free, args=(folder.path,))
        other.start()
        assert finished(other) == [0], "another run could have summed up at the same time"
        return collect(folder, data)

    monkeypatch.setattr(runner, "collect", look_while_collecting)
    assert (capfilt() / "complete.json").exists()


def _exit_with_whether_free(folder):
    with locked(folder / ".collect.lock", wait=False) as free:
        sys.exit(free)


def test_processes_of_one_machine_write_the_same_bytes(capfilt, digests, expected, watched):
    folder = capfilt("processes", IMAGES, "runner.executor=process", "runner.workers=2")
    assert digests(folder) == expected
    assert computed(watched) == 24
    workers = [json.loads(line)["worker"] for line in (folder / "timings.jsonl").open()]
    assert len(workers) == 3


def test_the_processes_of_torchrun_write_the_same_bytes(load, digests, expected, tmp_path, watched):
    path = tmp_path / "torchrun_config.yaml"
    path.write_text(to_yaml(load("torchrun", IMAGES, "runner.executor=torchrun")))
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    done = subprocess.run(
        [sys.executable, *command, "run.py", "--cfg", str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=WATCHDOG,
    )
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "torchrun") == expected
    assert computed(watched) == 24


def test_tasks_on_ray_write_the_same_bytes(capfilt, digests, expected):
    pytest.importorskip("ray")
    folder = capfilt("ray", IMAGES, "runner.executor=ray", "runner.workers=2")
    assert digests(folder) == expected


@pytest.mark.fault(52)
def test_ray_and_torchrun_say_what_they_need(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'lavis_lite\[ray\]'"):
        runners.run(load("out", "runner.executor=ray"))
    with pytest.raises(ConfigError, match="start with torchrun --nproc-per-node"):
        runners.run(load("out", "runner.executor=torchrun"))


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    ("overrides", "difference"),
    [
        (["filter.threshold=0.6"], "filter.threshold: None is now 0.6"),
        (["captioner.generate.length=5"], "captioner.generate.length: 5 is new"),
        (["captioner.scale=2.0"], "captioner.scale: 2.0 is new"),
        (["data.source.size=25"], "data.source.size: 25 is new"),
        (["data.batch_size=4"], "data.batch_size: 3 is now 4"),
        (["runner.shard_size=6"], "runner.shard_size: 8 is now 6"),
        (["run.seed=3"], "run.seed: 0 is now 3"),
        (["run.num_threads=2"], "threads of a worker: 1 is now 2"),
        (["run.precision=bf16"], "run.precision: 'fp32' is now 'bf16'"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused_and_named(
    load, capfilt, digests, tmp_path, overrides, difference
):
    folder = capfilt()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError) as caught:
        runners.run(load("out", *overrides))
    assert difference in str(caught.value)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.fault(50)
def test_other_weights_under_the_same_path_are_refused(capfilt, load, tmp_path):
    import torch
    from safetensors.torch import save_file

    weights = tmp_path / "weights.safetensors"
    save_file({"scale": torch.tensor(1.0)}, weights)
    capfilt("out", f"filter.checkpoint={weights}")
    shutil.copy(weights, tmp_path / "moved.safetensors")
    capfilt("out", f"filter.checkpoint={tmp_path}/moved.safetensors")  # the same elsewhere
    save_file({"scale": torch.tensor(1.5)}, weights)
    with pytest.raises(ConfigError, match="weights of the filter"):
        runners.run(load("out", f"filter.checkpoint={weights}"))


@pytest.mark.fault(50)
def test_another_input_under_the_same_path_is_refused(capfilt, load, tmp_path):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (80 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"photo {number}")
    source = f"data.source={{name: folder, path: {folder}}}"
    capfilt("out", source)
    (folder / "1.txt").write_text("another text")
    with pytest.raises(ConfigError, match="some rows of"):
        runners.run(load("out", source))


def test_the_run_of_another_kind_is_not_touched(load, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"runner": "train"}')
    with pytest.raises(ConfigError, match="holds a 'train' run"):
        runners.run(load("out"))
