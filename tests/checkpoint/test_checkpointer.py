"""Checkpoints survive kills, damage and full disks; all processes agree on which one to use."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from two_processes import run_on_two_processes

from lavis_lite import distributed
from lavis_lite.checkpoint.checkpointer import (
    Checkpointer,
    NothingToResume,
    read_manifest,
    read_weights,
)
from lavis_lite.checkpoint.directory import step_of
from lavis_lite.errors import CheckpointError, ConfigError

HERE = Path(__file__).resolve().parents[1]


class Tied(nn.Module):
    """Two keys of one weight, a buffer, and a view of another storage."""

    def __init__(self, value=0.0):
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.embed.weight
        self.register_buffer("queue", torch.zeros(2, 6)[:, ::2])
        for tensor in self.state_dict().values():
            tensor.fill_(value)


def save(directory, step, value=None, metrics=None, **options):
    model = Tied(step if value is None else value)
    return Checkpointer(directory, **options).save(
        step, model, {"step": step}, {"lr": 1e-4}, metrics
    )


def names(directory):
    return sorted(path.name for path in Path(directory).iterdir())


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path, fraction):
    os.truncate(path, int(path.stat().st_size * fraction))


# ---- what is on disk


def test_a_step_directory_holds_weights_state_and_manifest(tmp_path):
    path = save(tmp_path, 500, metrics={"r_mean": torch.tensor(3.5)})
    assert path == tmp_path / "step-00000500"
    assert len({(path / name).stat().st_mode for name in names(path)}) == 1
    assert names(path) == ["manifest.json", "model.safetensors", "state.pt"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["step"] == 500
    assert manifest["config"] == {"lr": 1e-4}
    assert manifest["metrics"] == {"r_mean": 3.5}
    assert manifest["aliases"] == {"head.weight": "embed.weight"}
    assert manifest["files"]["state.pt"]["size"] == (path / "state.pt").stat().st_size
    assert {"lavis_lite", "torch"} <= set(manifest["versions"])


def test_load_restores_every_key_the_ties_and_the_state(tmp_path):
    path = save(tmp_path, 3)
    model = Tied()
    assert Checkpointer(tmp_path).load(path, model) == {"step": 3}
    assert all((tensor == 3).all() for tensor in model.state_dict().values())
    assert model.head.weight is model.embed.weight
    assert set(read_weights(path)) == set(Tied().state_dict())


def test_saving_is_a_function_of_the_content(tmp_path):
    first, second = save(tmp_path / "a", 3), save(tmp_path / "b", 3)
    for name in names(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_wrapped_model_saves_under_bare_names(tmp_path):
    class Compiled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

    path = Checkpointer(tmp_path).save(1, Compiled(Tied(1)), {}, {})
    model = Tied()
    Checkpointer(tmp_path).load(path, Compiled(model))
    assert model.head.bias[0] == 1


@pytest.mark.fault(11)
def test_a_checkpoint_of_the_first_format_still_loads():
    path = HERE / "golden" / "step-00000007"
    model = Tied()
    state = Checkpointer(path.parent).load(path, model)
    assert state["step"] == 7
    assert state["moments"].tolist() == [1.0, 2.0]
    assert {key: tensor.mean().item() for key, tensor in model.state_dict().items()} == {
        "embed.weight": 7.0,
        "head.weight": 7.0,
        "head.bias": 7.0,
        "queue": 7.0,
    }


# ---- finding the newest


def test_nothing_there_is_none(tmp_path):
    assert Checkpointer(tmp_path / "missing").newest() is None
    assert Checkpointer(tmp_path).newest() is None


@pytest.mark.fault(1)
def test_without_its_manifest_a_checkpoint_does_not_exist(tmp_path, caplog):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    (second / "manifest.json").unlink()
    assert Checkpointer(tmp_path).newest() == first
    assert "step-00000002 has no manifest.json" in caplog.text
    shutil.rmtree(first)
    assert Checkpointer(tmp_path).newest() is None


@pytest.mark.fault(4)
def test_a_pointer_to_a_missing_file_is_not_believed(tmp_path):
    path = save(tmp_path, 1)
    for pointer in ("last", "last_checkpoint"):
        (tmp_path / pointer).write_text("step-00000009")
    assert Checkpointer(tmp_path).newest() == path


DAMAGES = {
    "half": lambda path: cut(path / "model.safetensors", 0.5),
    "empty": lambda path: cut(path / "model.safetensors", 0),
    "half state": lambda path: cut(path / "state.pt", 0.5),
    "bit in weights": lambda path: flip_a_bit(path / "model.safetensors"),
    "bit in state": lambda path: flip_a_bit(path / "state.pt"),
    "state missing": lambda path: (path / "state.pt").unlink(),
    "manifest empty": lambda path: cut(path / "manifest.json", 0),
    "manifest cut": lambda path: cut(path / "manifest.json", 0.5),
    "manifest of a later format": lambda path: edit_manifest(path, format=99),
    "manifest of another step": lambda path: edit_manifest(path, step=1),
    "manifest is a list": lambda path: (path / "manifest.json").write_text("[]"),
    "manifest points outside": lambda path: edit_manifest(
        path, files={"model.safetensors": {}, "../x": {}}
    ),
}


@pytest.mark.fault(3)
def test_a_flipped_bit_is_found_wherever_it_is_though_the_file_still_loads(tmp_path):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    weights = second / "model.safetensors"
    whole = weights.read_bytes()
    for bit in [*random.Random(0).sample(range(8 * len(whole)), 20), 8 * len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        weights.write_bytes(flipped)
        assert Checkpointer(tmp_path).newest() == first
        with pytest.raises(CheckpointError, match="sha256 is"):
            Checkpointer(tmp_path).load(second, Tied())
    load_file(weights)  # the last bit is the sign of a number: nothing else tells


def edit_manifest(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.fault(2)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_warned_about_and_the_one_before_is_used(tmp_path, damage, caplog):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    DAMAGES[damage](second)
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.newest() == first
    assert "trying the one before" in caplog.text
    assert "step-00000002" in caplog.text
    with pytest.raises(CheckpointError, match="step-00000002"):
        checkpointer.load(second, Tied())
    DAMAGES[damage](first) if "another" not in damage else edit_manifest(first, step=5)
    with pytest.raises(NothingToResume, match=r"none of its 2 checkpoints is whole \(step-"):
        Checkpointer(tmp_path).newest()


def test_load_refuses_another_model(tmp_path):
    path = save(tmp_path, 1)
    with pytest.raises(CheckpointError, match="do not fit Linear"):
        Checkpointer(tmp_path).load(path, nn.Linear(3, 4))


# ---- kills


@pytest.mark.fault(1)
def test_a_kill_at_any_moment_leaves_a_loadable_newest(tmp_path):
    result = subprocess.run(
        [sys.executable, str(HERE / "helpers" / "killed_saves.py"), str(tmp_path), "20"],
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("20 kills within a save")


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 1, value=1)
    path = save(tmp_path, 1, value=2)
    assert names(tmp_path) == ["step-00000001"]
    assert read_weights(path)["head.bias"][0] == 2


def test_a_kill_while_a_step_is_replaced_leaves_the_old_one(tmp_path):
    path = save(tmp_path, 1)
    aside = tmp_path / f".replaced-{path.name}"
    path.rename(aside)
    assert Checkpointer(tmp_path).newest() == aside
    Checkpointer(tmp_path).load(aside, Tied())
    save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_state_that_cannot_be_saved_leaves_no_rubbish(tmp_path):
    with pytest.raises(CheckpointError, match=r"state\['hook'\]"):
        Checkpointer(tmp_path).save(1, Tied(), {"hook": print}, {})
    assert names(tmp_path) == []


def test_leftovers_of_killed_saves_are_ignored_then_removed(tmp_path):
    for leftover in (".tmp-step-00000009-1", ".trash-step-00000001"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "manifest.json").write_text("{}")
    assert Checkpointer(tmp_path).newest() is None
    save(tmp_path, 1)
    assert names(tmp_path) == ["step-00000001"]


# ---- what is kept


def kept_steps(directory):
    return [step_of(directory / name) for name in names(directory)]


@pytest.mark.fault(5)
def test_the_last_three_and_the_best_are_kept_also_after_a_restart(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: float("nan"), 5: 0.3}
    for half in (range(1, 6), range(6, 11)):
        checkpointer = Checkpointer(tmp_path, keep_last=3, keep_best="r_mean")  # a new process
        for step in half:
            metrics = {"r_mean": scores.get(step, 0.5)}
            checkpointer.save(step, Tied(step), {}, {}, metrics)
        kept = [half[-3], half[-2], half[-1]]
        assert kept_steps(tmp_path) == [2, *kept]
    assert checkpointer.best() == tmp_path / "step-00000002"


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 3)])
def test_best_may_be_the_smallest_and_needs_the_metric(tmp_path, mode, best):
    options = {"keep_last": 1, "keep_best": "loss", "best_mode": mode}
    for step, metrics in enumerate([{"loss": 1.0}, None, {"loss": 3.0}, {"loss": 3.0}, None], 1):
        save(tmp_path, step, metrics=metrics, **options)
    assert kept_steps(tmp_path) == [best, 5]


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path):
    for step in (1, 2, 3):
        path = save(tmp_path, step, keep_last=3)
    flip_a_bit(path / "model.safetensors")
    checkpointer = Checkpointer(tmp_path, keep_last=2)
    assert step_of(checkpointer.newest()) == 2
    checkpointer.save(4, Tied(4), {}, {})
    assert kept_steps(tmp_path) == [2, 3, 4]  # 3 is damaged: 2 and 4 are the last two whole ones
    checkpointer.save(5, Tied(5), {}, {})
    assert kept_steps(tmp_path) == [4, 5]


def test_keeping_none_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="keep_last is 0"):
        Checkpointer(tmp_path, keep_last=0)


# ---- two processes


def _save_and_load_together(directory, own):
    """With ``own``, each rank has its own directory: only rank 0's may come into being."""
    place = Path(directory) / (str(distributed.rank()) if own else "shared")
    path = Checkpointer(place).save(1, Tied(1), {"rank": distributed.rank()}, {})
    if own:
        return place.exists()
    model = Tied()
    return str(path), Checkpointer(place).load(path, model), model.head.bias[0].item()


def test_only_rank_0_writes_and_all_ranks_load_the_same(tmp_path):
    assert run_on_two_processes(_save_and_load_together, tmp_path, True) == [True, False]
    first, second = run_on_two_processes(_save_and_load_together, tmp_path, False)
    assert first == second == (str(tmp_path / "shared" / "step-00000001"), {"rank": 0}, 1.0)


def _newest_together(directory):
    try:
        return str(Checkpointer(directory).newest())
    except CheckpointError as error:
        return type(error).__name__, str(error)


def test_all_ranks_agree_on_the_newest_whole_one(tmp_path):
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    flip_a_bit(second / "state.pt")
    assert run_on_two_processes(_newest_together, tmp_path) == [str(first)] * 2
    flip_a_bit(first / "state.pt")
    one, two = run_on_two_processes(_newest_together, tmp_path)
    assert one == two
    assert one[0] == "NothingToResume"


def _newest_on_own_disks(directory):
    place = Path(directory) / str(distributed.rank())
    return _newest_together(place)


def test_a_rank_that_does_not_see_the_checkpoint_stops_all(tmp_path):
    save(tmp_path / "0", 1)
    for kind, text in run_on_two_processes(_newest_on_own_disks, tmp_path):
        assert kind == "CheckpointError"
        assert "rank 1 cannot see it" in text


def _raise_full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def _fail_together(directory):
    checkpointer = Checkpointer(directory)
    try:
        if distributed.is_main():
            torch.save = _raise_full
        checkpointer.save(1, Tied(), {}, {})
    except CheckpointError as error:
        return str(error)


def test_a_save_that_fails_on_rank_0_stops_all(tmp_path):
    first, second = run_on_two_processes(_fail_together, tmp_path)
    assert first == second
    assert "No space left" in first


def test_the_manifest_can_be_read_alone(tmp_path):
    assert read_manifest(save(tmp_path, 4))["step"] == 4
